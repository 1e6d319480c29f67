"""Trackers and mask finders that the user installs: what they must look like, and what is shown before they run.

The package needs none of them. A tracker turns a window of frames into dense tracks; ``tracks_from_windows`` joins the
windows. A mask finder turns a window of frames and rough masks into better ones. Both say under which licence their
weights come, and ``show_licence`` says it to the user, once per name, before the first use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.tracking.tracks import Tracks

log = logging.getLogger(__name__)

NO_WEIGHTS = "none: no weights"
"""Licence of what needs no weights; nothing has to be said to the user then."""

_shown: set[str] = set()

_IMAGE_MEAN = torch.tensor([0.485, 0.456, 0.406])
_IMAGE_SPREAD = torch.tensor([0.229, 0.224, 0.225])


@runtime_checkable
class Tracker(Protocol):
    """Points followed through the frames of a window.

    Attributes:
        name: shown to the user.
        licence: of the weights, shown before the first use.
    """

    name: str
    licence: str

    def __call__(
        self, frames: Float[Tensor, "V H W 3"], queries: Float[Tensor, "N 2"], query_frame: int
    ) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
        """Positions (pixels, centres at +0.5) and visibility of the queried points in every frame of the window."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Interest points of one frame; ``name`` and ``licence`` as for ``Tracker``."""

    name: str
    licence: str

    def __call__(self, frame: Float[Tensor, "H W 3"]) -> Float[Tensor, "N 2"]:
        """Positions in pixels, centres at +0.5, best first."""
        ...


@runtime_checkable
class MaskFinder(Protocol):
    """Better masks from rough ones; ``name`` and ``licence`` as for ``Tracker``."""

    name: str
    licence: str

    def __call__(
        self, frames: Float[Tensor, "V H W 3"], rough: Bool[Tensor, "V H W"]
    ) -> Bool[Tensor, "V H W"]:
        """True on moving things."""
        ...


@runtime_checkable
class Plugin(Protocol):
    """What all of them, and the matchers of ``matching.py``, have in common."""

    name: str
    licence: str


def show_licence(plugin: Plugin) -> None:
    """Tell the user, once per name, which weights are about to be used and under which licence."""
    if plugin.name not in _shown:
        _shown.add(plugin.name)
        level = logging.INFO if plugin.licence == NO_WEIGHTS else logging.WARNING
        log.log(level, "%s: its weights come under: %s", plugin.name, plugin.licence)


def tracks_from_windows(
    frames: Iterable[Float[Tensor, "H W 3"]],
    tracker: Tracker,
    detector: Detector,
    *,
    window: int = 12,
    stride: int = 6,
    max_points: int = 512,
) -> Tracks:
    """Tracks of a learned tracker: windows with overlap, points queried at the first and the last frame of each.

    Tracks of different windows stay separate; the frames they share tie the windows together. Holds one window.

    Source: GeometryCrafter, supplement, section 4 (windows of 12, stride 6).
    """
    show_licence(tracker)
    show_licence(detector)
    held: list[Tensor] = []
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    start = count = total = 0
    size = (0, 0)

    def solve(offset: int) -> None:
        nonlocal count
        video = torch.stack(held)
        for query_frame in {0, len(held) - 1}:
            queries = detector(video[query_frame])[:max_points]
            if len(queries) == 0:
                continue
            xy, visible = tracker(video, queries, query_frame)
            inside = (xy >= 0).all(-1) & (xy[..., 0] < size[1]) & (xy[..., 1] < size[0])
            seen = (visible & inside).T
            seen &= (seen.sum(1) >= 2)[:, None]
            track, frame = seen.nonzero(as_tuple=True)
            pieces.append(
                ((track + count).numpy(), (frame + offset).numpy(), xy.transpose(0, 1)[seen].float().numpy())
            )
            count += len(queries)

    solved_to = 0
    for frame in frames:
        size = (frame.shape[0], frame.shape[1])
        held.append(frame)
        total += 1
        if len(held) == window:
            solve(start)
            solved_to = total
            held, start = held[stride:], start + stride
    if total == 0:
        raise ValueError("expected at least one frame, got none")
    if solved_to < total:
        solve(start)
    track = np.concatenate([p[0] for p in pieces]) if pieces else np.empty(0, np.int64)
    frame_of = np.concatenate([p[1] for p in pieces]) if pieces else np.empty(0, np.int64)
    xy = np.concatenate([p[2] for p in pieces]) if pieces else np.empty((0, 2), np.float32)
    _, dense = np.unique(track, return_inverse=True)
    tied = np.zeros(total, bool)
    for t in range(1, total):
        before, now = dense[frame_of == t - 1], dense[frame_of == t]
        tied[t] = len(np.intersect1d(before, now)) > 0
    return Tracks(
        torch.from_numpy(dense.reshape(-1).astype(np.int64)),
        torch.from_numpy(frame_of.astype(np.int64)),
        torch.from_numpy(xy),
        total,
        size,
        torch.from_numpy(~tied),
    )


def load_state(model: torch.nn.Module, path: str | Path, name: str) -> Any:
    """The model in evaluation mode with the weights of a file, under the authors' keys or those of kornia.

    Raises:
        CheckpointError: the file is missing or does not fit.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"expected {name} weights at {path}, found nothing")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("extractor", state)
        renamed = {}
        for key, value in state.items():
            parts = key.removeprefix("matcher.").split(".")
            if parts[0] in ("self_attn", "cross_attn"):  # the authors' order of LightGlue's blocks
                parts[:2] = ["transformers", parts[1], parts[0]]
            renamed[".".join(parts)] = value
        fixed = {k: v for k, v in model.named_buffers() if k == "confidence_thresholds"}
        model.load_state_dict({**fixed, **renamed})
    except (RuntimeError, AttributeError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(f"{path} does not hold {name} weights: {error}") from error
    return model.eval()


class DiskDetector:
    """DISK interest points through kornia, from weights that the user has placed on this machine."""

    name = "DISK"
    licence = "Apache-2.0 (DISK weights as distributed with kornia; check the file you installed)"

    def __init__(self, weights: str | Path, *, max_points: int = 1024) -> None:
        """Args:
        weights: state dictionary of ``kornia.feature.DISK``.
        max_points: per frame.

        Raises:
            MissingExtraError: kornia is not installed.
            CheckpointError: the weights are missing or do not fit.
        """
        try:
            from kornia.feature import DISK
        except ImportError as error:
            raise MissingExtraError("kornia", "learned-tracks", "the DISK detector") from error
        self._model = load_state(DISK(), weights, "DISK")
        self._max_points = max_points

    @torch.inference_mode()
    def __call__(self, frame: Float[Tensor, "H W 3"]) -> Float[Tensor, "N 2"]:
        found = self._model(frame.permute(2, 0, 1)[None], self._max_points, pad_if_not_divisible=True)[0]
        order = found.detection_scores.argsort(descending=True)
        return found.keypoints[order] + 0.5


class SuperPointDetector:
    """SuperPoint interest points through transformers, from weights that the user has placed on this machine."""

    name = "SuperPoint"
    licence = "Magic Leap: academic and non-commercial research only (check the folder you installed)"

    def __init__(self, weights: str | Path, *, max_points: int = 1024) -> None:
        """Args:
        weights: local folder of a transformers SuperPoint model.
        max_points: per frame.

        Raises:
            MissingExtraError: transformers is not installed.
            CheckpointError: the folder is missing or holds something else.
        """
        try:
            from transformers import SuperPointForKeypointDetection
        except ImportError as error:
            raise MissingExtraError("transformers", "geometrycrafter", "the SuperPoint detector") from error
        if not Path(weights).is_dir():
            raise CheckpointError(f"expected a SuperPoint folder at {weights}, found nothing")
        try:
            model: Any = SuperPointForKeypointDetection.from_pretrained(weights, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{weights} does not hold a SuperPoint model: {error}") from error
        self._model, self._max_points = model.eval(), max_points

    @torch.inference_mode()
    def __call__(self, frame: Float[Tensor, "H W 3"]) -> Float[Tensor, "N 2"]:
        found = self._model(frame.permute(2, 0, 1)[None])
        seen = found.mask[0].bool()
        order = found.scores[0][seen].argsort(descending=True)[: self._max_points]
        size = torch.tensor([frame.shape[1], frame.shape[0]])
        return found.keypoints[0][seen][order] * size + 0.5


class QueryTracker:
    """A tracker that takes a video and queries, as CoTracker does, in the form of a ``Tracker``.

    The model is a TorchScript file or any callable:
    ``(video [1, V, 3, H, W] in 0..255, queries [1, N, 3] of (frame, x, y)) -> (tracks [1, V, N, 2], visible [1, V, N])``
    with pixel centres at integers. Visibility may be boolean or a probability.
    """

    def __init__(
        self, model: str | Path | Callable[[Tensor, Tensor], Any], *, name: str, licence: str
    ) -> None:
        """Args:
        model: a TorchScript file, or what the user has loaded.
        name: shown to the user.
        licence: of its weights, shown before the first use.

        Raises:
            CheckpointError: the file is missing or is no TorchScript program.
        """
        self.name, self.licence = name, licence
        if isinstance(model, str | Path):
            if not Path(model).is_file():
                raise CheckpointError(f"expected a TorchScript tracker at {model}, found nothing")
            try:
                self._model: Callable[[Tensor, Tensor], Any] = torch.jit.load(str(model), map_location="cpu")
            except RuntimeError as error:
                raise CheckpointError(f"{model} is not a TorchScript program: {error}") from error
        else:
            self._model = model

    @torch.inference_mode()
    def __call__(
        self, frames: Float[Tensor, "V H W 3"], queries: Float[Tensor, "N 2"], query_frame: int
    ) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
        times = torch.full((len(queries), 1), float(query_frame))
        asked = torch.cat([times, queries - 0.5], 1)[None]
        tracks, visible = self._model(frames.permute(0, 3, 1, 2)[None] * 255, asked)[:2]
        expected = (1, len(frames), len(queries))
        if tuple(tracks.shape) != (*expected, 2) or tuple(visible.shape[:3]) != expected:
            raise ValueError(
                f"{self.name}: expected tracks {(*expected, 2)} and visibility {expected}, got "
                f"{tuple(tracks.shape)} and {tuple(visible.shape)}"
            )
        return tracks[0].float() + 0.5, visible.reshape(expected)[0] > 0.5


class KltTracker:
    """The package's own matching in the form of a ``Tracker``, for detectors without a matcher of their own."""

    name = "pyramidal Lucas-Kanade"
    licence = NO_WEIGHTS

    def __call__(
        self, frames: Float[Tensor, "V H W 3"], queries: Float[Tensor, "N 2"], query_frame: int
    ) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
        from geo4d.tracking.tracks import follow_points

        xy = torch.zeros(len(frames), len(queries), 2)
        visible = torch.zeros(len(frames), len(queries), dtype=torch.bool)
        for order in (range(query_frame, len(frames)), range(query_frame, -1, -1)):
            found, seen = follow_points([frames[t] for t in order], queries)
            for k, t in enumerate(order):
                xy[t], visible[t] = found[k], seen[k]
        return xy, visible


def refine_masks(
    frames: Iterable[Float[Tensor, "H W 3"]],
    rough: Iterable[Bool[Tensor, "H W"]],
    finder: MaskFinder,
    *,
    window: int = 24,
) -> Iterator[Bool[Tensor, "H W"]]:
    """Masks of a learned finder, window after window without overlap."""
    show_licence(finder)
    held: list[tuple[Tensor, Tensor]] = []

    def solve() -> Iterator[Tensor]:
        yield from finder(torch.stack([f for f, _ in held]), torch.stack([m for _, m in held]))

    for pair in zip(frames, rough, strict=True):
        held.append(pair)
        if len(held) == window:
            yield from solve()
            held = []
    if held:
        yield from solve()


class Sam2Finder:
    """SAM 2 through transformers, from weights on this machine; rough masks become box prompts.

    The largest rough regions of the frame that shows most of them are given as boxes and followed both ways.
    """

    name = "SAM 2"
    licence = "Apache-2.0 (SAM 2 weights by Meta; check the folder you installed)"

    def __init__(self, weights: str | Path, *, max_objects: int = 4, least_area: float = 0.003) -> None:
        """Args:
        weights: local folder of a transformers SAM 2 video model.
        max_objects: regions followed per window.
        least_area: smaller regions are left out, share of the picture.

        Raises:
            MissingExtraError: transformers is not installed or too old.
            CheckpointError: the folder is missing or holds something else.
        """
        try:
            from transformers import Sam2VideoModel
        except ImportError as error:
            raise MissingExtraError("transformers", "geometrycrafter", "SAM 2 masks") from error
        if not Path(weights).is_dir():
            raise CheckpointError(f"expected a SAM 2 folder at {weights}, found nothing")
        try:
            self._model: Any = Sam2VideoModel.from_pretrained(weights, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{weights} does not hold a SAM 2 video model: {error}") from error
        self._max_objects, self._least_area = max_objects, least_area

    @torch.inference_mode()
    def __call__(
        self, frames: Float[Tensor, "V H W 3"], rough: Bool[Tensor, "V H W"]
    ) -> Bool[Tensor, "V H W"]:
        seed = int(rough.flatten(1).sum(1).argmax())
        boxes = region_boxes(rough[seed], self._max_objects, self._least_area)
        result = torch.zeros_like(rough)
        if not boxes:
            return result
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        height, width = rough.shape[1:]
        side = int(self._model.config.image_size)
        # The library's processor needs torchvision; it does no more than this and the scaling of the boxes below.
        pixels = torch.nn.functional.interpolate(
            frames.permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True
        )
        pixels = (pixels - _IMAGE_MEAN[:, None, None]) / _IMAGE_SPREAD[:, None, None]
        session = Sam2VideoInferenceSession(
            video=pixels, video_height=height, video_width=width, dtype=torch.float32
        )
        scale = torch.tensor([side / width, side / height])
        names = list(range(1, len(boxes) + 1))
        for name, box in zip(names, boxes, strict=True):
            corners = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 2, 2) * scale
            labels = torch.tensor([[[2, 3]]], dtype=torch.int32)  # top left and bottom right of a box
            session.add_point_inputs(
                session.obj_id_to_idx(name), seed, {"point_coords": corners, "point_labels": labels}
            )
        session.obj_with_new_inputs = names
        self._model(inference_session=session, frame_idx=seed)
        for backwards in (False, True):
            for output in self._model.propagate_in_video_iterator(
                session, start_frame_idx=seed, reverse=backwards
            ):
                logits = torch.nn.functional.interpolate(
                    output.pred_masks.float(), (height, width), mode="bilinear"
                )
                result[output.frame_idx] |= (logits > 0).flatten(0, 1).any(0)
        return result


def region_boxes(mask: Bool[Tensor, "H W"], count: int, least_area: float) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of the largest connected regions."""
    import cv2

    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8), connectivity=8)
    regions = [s for s in stats[1:] if s[cv2.CC_STAT_AREA] >= least_area * mask.numel()]
    regions.sort(key=lambda s: -int(s[cv2.CC_STAT_AREA]))
    return [(int(s[0]), int(s[1]), int(s[0] + s[2]), int(s[1] + s[3])) for s in regions[:count]]
