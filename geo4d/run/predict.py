"""The windows of a clip through a predictor, each once, onto the spool."""

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.errors import ResourceError, is_out_of_memory
from geo4d.formats.arrays import holds_arrays, load_arrays, save_arrays
from geo4d.models.base import Predictor
from geo4d.optimise.scratch import give_back_memory
from geo4d.run.plan import RunPlan
from geo4d.run.spool import Spool
from geo4d.types import EvidenceMaps, Prediction, Window
from geo4d.video.io import Video
from geo4d.video.kept import KeptClip

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done, and how much there is."""

CONTEXT = "context.zarr.zip"

NEXT_TRY = 1_000_003
"""Added to the seed for each further try of a window."""


@dataclass(frozen=True)
class WindowSource:
    """Everything that a window's prediction is a function of.

    Attributes:
        clip: the frames.
        plan: the windows.
        predictor: the model.
        seed: of the run.
        intrinsics: known ones, in pixels of the model's pictures, or None.
        evidence: makes the evidence about a window, or None.
        context: what ``predictor.prepare`` returned.
    """

    clip: Video | KeptClip
    plan: RunPlan
    predictor: Predictor
    seed: int
    intrinsics: Float[Tensor, "T 3 3"] | None = None
    evidence: Callable[[Window], EvidenceMaps] | None = None
    context: Mapping[str, Tensor] | None = None

    def window(self, index: int) -> Window:
        """Frames of a window at the model's size."""
        return self.frames(self.plan.windows[index], index)

    def frames(self, frames: Sequence[int], index: int) -> Window:
        """Any frames of the clip as a window."""
        indices = torch.tensor(frames)
        step = max(int(indices.diff().median()), 1) if len(frames) > 1 else 1
        return Window(
            rgb=self.clip.read(indices, self.plan.model_size),
            frame_indices=indices,
            times_s=torch.from_numpy(self.clip.times_s[indices.numpy()]),
            index=index,
            fps=self.clip.fps / step,
            intrinsics=None if self.intrinsics is None else self.intrinsics[indices],
            pixel_aspect=self.plan.pixel_aspect,
        )

    def inputs(self, index: int) -> tuple[Window, EvidenceMaps | None]:
        """Frames of a window and the evidence about them."""
        window = self.window(index)
        return window, None if self.evidence is None else self.evidence(window)

    def predict(
        self, window: Window, evidence: EvidenceMaps | None, attempt: int, previous: Prediction | None
    ) -> Prediction:
        """One window, with its non-finite values masked and reported.

        Raises:
            ResourceError: out of memory also after everything that can be let go was.
        """

        def predict() -> Prediction:
            return self.predictor.predict(
                window,
                seed=self.seed + attempt * NEXT_TRY,
                evidence=evidence,
                context=self.context,
                previous=previous,
            )

        try:
            prediction = predict()
        except Exception as error:
            if isinstance(error, ResourceError) or not is_out_of_memory(error):
                raise
            prediction = self._predict_with_less(predict, window, error)
        return mask_nonfinite(prediction)

    def predict_group(self, windows: Sequence[Window]) -> list[Prediction]:
        """Several windows in one call of the predictor, or one by one where memory does not allow it."""
        together: Callable[..., list[Prediction]] = self.predictor.predict_batch  # type: ignore[attr-defined]
        try:
            return [mask_nonfinite(found) for found in together(windows, seed=self.seed)]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out of memory with %d windows together; one after another", len(windows))
            error.__traceback__ = None  # it holds every tensor of the try
        return [self.predict(window, None, 0, None) for window in windows]

    def _predict_with_less(
        self, predict: Callable[[], Prediction], window: Window, error: Exception
    ) -> Prediction:
        """A second try with one thread, whose work space is not there once for each, and with empty caches."""
        log.warning("window %d: out of memory; once more with one thread and empty caches", window.index)
        error.__traceback__ = None  # it holds every tensor of the first try
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            gc.collect()
            give_back_memory()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return predict()
        except Exception as again:
            if isinstance(again, ResourceError) or not is_out_of_memory(again):
                raise
            info = self.predictor.info
            smaller = info.smaller or "a smaller model"
            raise ResourceError(
                f"out of memory in window {window.index} of the model {info.name}; use {smaller}, or close other programs"
            ) from again
        finally:
            torch.set_num_threads(threads)


def prepare(source: WindowSource, folder: Path) -> WindowSource:
    """The source with the predictor's first pass over all frames, done once per run and kept in ``folder``."""
    if not source.predictor.info.needs_prepare:
        return source
    path = folder / CONTEXT
    if not holds_arrays(path):
        length, total = source.plan.model.window_length, source.clip.num_frames
        disjoint = (
            source.frames(range(a, min(a + length, total)), a // length) for a in range(0, total, length)
        )
        context = source.predictor.prepare(disjoint)
        save_arrays(path, {name: value.cpu().numpy() for name, value in context.items()}, {})
    return replace(source, context=load_context(folder))


def load_context(folder: Path) -> dict[str, Tensor]:
    """What the predictor's first pass has left in a folder.

    Raises:
        InputError: it is not there, or damaged.
    """
    arrays, _ = load_arrays(folder / CONTEXT)
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def predict_windows(
    source: WindowSource, spool: Spool, progress: Progress, only: range | None = None
) -> None:
    """Predict every window that the spool does not hold yet, in order.

    Where there is evidence to make, that of the next window is made beside the prediction of this one, in one thread that
    alone touches the clip; what was predicted before is written beside it in another.

    Args:
        only: numbers of some consecutive windows, for processes that share a video. It begins at a multiple of
            ``windows_at_once``, or at a shot where windows go on from each other.
    """
    only = range(len(source.plan.windows)) if only is None else only
    with ThreadPoolExecutor(1) as writing:
        last: Future[int] | None = None

        def write(prediction: Prediction) -> None:
            nonlocal last
            if last is not None:
                last.result()  # one at a time waits with its maps
            last = writing.submit(spool.write, prediction)

        if source.evidence is None and source.predictor.info.windows_at_once > 1:
            _predict_groups(source, spool, write, progress, only)
        else:
            _predict_in_turn(source, spool, write, lambda: last is None or last.result(), progress, only)
        if last is not None:
            last.result()


def _predict_in_turn(
    source: WindowSource,
    spool: Spool,
    write: Callable[[Prediction], None],
    written: Callable[[], object],
    progress: Progress,
    only: range,
) -> None:
    """One window after another; each may go on from the one before, as that came back from disk."""
    total = len(source.plan.windows)
    previous: Prediction | None = None
    missing = iter([index for index in only if not spool.path(index).is_file()])
    with ThreadPoolExecutor(1) as beside:
        ahead: dict[int, Future[tuple[Window, EvidenceMaps | None]]] = {}

        def prepare_next() -> None:
            index = next(missing, None)
            if index is not None:
                ahead[index] = beside.submit(source.inputs, index)

        if source.evidence is not None:
            prepare_next()
        for index in only:
            prediction = spool.read(index)
            if prediction is None:
                if source.evidence is None:
                    window, evidence = source.inputs(index)
                else:
                    inputs = ahead.pop(index, None) or beside.submit(
                        source.inputs, index
                    )  # its file was damaged
                    window, evidence = inputs.result()
                    prepare_next()
                prediction = source.predict(window, evidence, 0, _before(source.plan, index, previous))
                write(prediction)
                if prediction.carry is not None:
                    _require_said(source)
                    written()
                    prediction = spool.read(index)  # as it came back from disk: a resumed run sees the same
                    if prediction is None:
                        raise AssertionError(f"window {index} was written but cannot be read")
            previous = prediction
            progress("predict", index + 1, total)


def _predict_groups(
    source: WindowSource, spool: Spool, write: Callable[[Prediction], None], progress: Progress, only: range
) -> None:
    """Several windows a call. Which ones share a call follows from their numbers, so a resumed run does the same."""
    total, size = len(source.plan.windows), source.predictor.info.windows_at_once
    for first in only[::size]:
        group = range(first, min(first + size, total))
        missing = {index for index in group if spool.read(index) is None}
        if missing:
            for prediction in source.predict_group([source.window(index) for index in group]):
                if prediction.window_index in missing:
                    write(prediction)
        progress("predict", group.stop, total)


def predict_again(source: WindowSource, spool: Spool, index: int, attempt: int, before: int) -> bool:
    """Another try of a window, with another seed.

    Args:
        attempt: number of the try; a window that agreed at first has no earlier ones but 0.
        before: the try that the window stands at.
    Returns:
        whether it differs from the try before; a model without noise gives the same again.
    """
    if spool.read(index, attempt) is None:
        previous = _before(source.plan, index, spool.read(index - 1) if index else None)
        spool.write(source.predict(*source.inputs(index), attempt, previous), attempt)
    new, old = spool.read(index, attempt), spool.read(index, before)
    if new is None or old is None:
        raise AssertionError(f"window {index} was written but cannot be read")
    return any(
        not torch.equal(value, old.tensors()[name])
        for name, value in new.tensors().items()
        if name in old.tensors()
    )


def _require_said(source: WindowSource) -> None:
    """
    Raises:
        ValueError: a predictor carries a state and does not say so, which processes that share a video rely on.
    """
    if not source.predictor.info.carries:
        raise ValueError(
            f"the predictor {source.predictor.info.name} returned a carry, expected info.carries=True; set it"
        )


def _before(plan: RunPlan, index: int, previous: Prediction | None) -> Prediction | None:
    """The prediction that the next one may go on from: with something to carry, and of the same shot."""
    if previous is None or previous.carry is None:
        return None
    shares_shot = any(a <= plan.windows[index - 1][0] and plan.windows[index][0] < b for a, b in plan.scenes)
    return previous if shares_shot else None


def mask_nonfinite(prediction: Prediction) -> Prediction:
    """The prediction with pixels that are NaN or infinite made invalid; says how many in its provenance.

    A window with such pixels is still used where it is sound; one without a sound pixel has no valid ones left, and the
    fusion leaves it out.
    """
    bad = torch.zeros(prediction.num_frames, *prediction.size, dtype=torch.bool)
    maps = {
        name: value
        for name, value in prediction.tensors().items()
        if name in ("point_map", "point_uncertainty", "disparity", "disparity_uncertainty")
    }
    for value in maps.values():
        finite = torch.isfinite(value)
        bad |= ~(finite.all(-1) if finite.ndim == 4 else finite).to(bad.device)
    cameras = {
        name: value
        for name, value in prediction.tensors().items()
        if name in ("ray_map", "ray_c2w", "intrinsics", "c2w") and not bool(torch.isfinite(value).all())
    }
    share = float(bad.float().mean())
    carry = prediction.carry or {}
    carry_is_finite = all(bool(torch.isfinite(value).all()) for value in carry.values())
    if share == 0 and not cameras and carry_is_finite:
        return prediction
    log.warning(
        "window %d: %.1f %% of its pixels%s are not finite and are not used",
        prediction.window_index,
        100 * share,
        f" and its {', '.join(cameras)}" if cameras else "",
    )
    known = prediction.provenance.get("not_finite", {})  # what the pipeline masked itself
    valid = torch.ones_like(bad) if prediction.valid is None else prediction.valid
    changes: dict[str, Any] = {name: torch.nan_to_num(value, 0.0, 0.0, 0.0) for name, value in maps.items()}
    changes.update(dict.fromkeys(cameras))
    if not carry_is_finite:
        changes["carry"] = None  # the next window begins anew, and is not spoilt
    return replace(
        prediction,
        **changes,
        valid=valid & ~bad.to(valid.device),
        provenance={
            **prediction.provenance,
            "not_finite": {
                **known,
                "share_of_pixels": max(share, known.get("share_of_pixels", 0.0)),
                "cameras": sorted({*cameras, *known.get("cameras", [])}),
            },
        },
    )


def nonfinite_windows(provenance: Mapping[int, Mapping[str, Any]]) -> dict[int, Any]:
    """What ``mask_nonfinite`` or the model's own pipeline found, by number of the window.

    Args:
        provenance: of the predictions of the model; evidence from motion is no failure of the model where it has no
            value.
    """
    return {window: told["not_finite"] for window, told in provenance.items() if "not_finite" in told}
