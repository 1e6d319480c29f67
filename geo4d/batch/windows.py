"""The windows of one long video over several workers, onto the spool that they share.

Tracks, cameras, what moves and the alignment are made in one process; frames reach workers as the small pictures that the
run keeps anyway, so that the video is decoded in one place. A worker goes through neighbouring windows, so that it sweeps
every frame once; one that has nothing left takes half of what is left of another. Since a prediction is a function of
window, seed and evidence, who makes it does not matter.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from geo4d.batch.engine import Job
from geo4d.batch.engines import make_engine
from geo4d.batch.one import load
from geo4d.batch.queue import require_same, work_off
from geo4d.batch.settings import WorkerSettings
from geo4d.config import Precision
from geo4d.errors import BatchError, explain
from geo4d.models.base import PredictorInfo
from geo4d.results.layout import plain
from geo4d.results.provenance import versions
from geo4d.run.evidence import kept_evidence
from geo4d.run.first_pass import kept_sizes
from geo4d.run.inputs import describe_model
from geo4d.run.plan import RunPlan, require_space
from geo4d.run.predict import Progress, WindowSource, load_context, predict_windows
from geo4d.run.spool import Spool
from geo4d.video.io import Video
from geo4d.video.kept import KeptClip, KeptPictures

log = logging.getLogger(__name__)

TOGETHER = 4
"""Windows at most that a worker is given at a time: evidence of one is made beside the prediction of the one before."""


@dataclass(frozen=True)
class WindowOrder:
    """All that a worker must know of a run, beside the model and the files in the spool's folder.

    Attributes:
        folder: of the spool.
        sizes: of the pictures that are kept there.
        evidence: make evidence from the cameras that are kept there.
        prepared: the predictor's first pass is kept there.
    """

    folder: str
    plan: RunPlan
    seed: int
    precision: Precision
    sizes: tuple[tuple[int, int], ...]
    times_s: np.ndarray
    fps: float
    intrinsics: Float[Tensor, "T 3 3"] | None
    evidence: bool
    prepared: bool


@dataclass(frozen=True)
class Stretch:
    """Some consecutive windows."""

    first: int
    stop: int
    folder: str

    @property
    def name(self) -> str:
        """For people."""
        return f"windows {self.first} to {self.stop - 1}"


@dataclass(frozen=True)
class LoadedWindows:
    """What a worker holds."""

    source: WindowSource
    spool: Spool
    identity: dict[str, Any]


def load_windows(settings: Mapping[str, Any]) -> LoadedWindows:
    """Load the model, and open what the run has left for workers.

    Args:
        settings: keywords of ``reconstruct``, and ``order``.
    """
    rest = dict(settings)
    order: WindowOrder = rest.pop("order")
    loaded = load(rest)
    folder = Path(order.folder)
    spool = Spool(folder, order.precision)
    clip = KeptClip(
        KeptPictures(folder, order.sizes, order.plan.num_frames), np.asarray(order.times_s), order.fps
    )
    evidence = None
    if order.evidence:
        evidence = kept_evidence(spool, clip, order.plan.model_size, order.plan.windows)
    context = load_context(folder) if order.prepared else None
    source = WindowSource(clip, order.plan, loaded.predictor, order.seed, order.intrinsics, evidence, context)
    return LoadedWindows(source, spool, _identity(loaded.predictor.info, loaded.identity))


def run_stretch(loaded: LoadedWindows, stretch: Stretch, on_progress: Progress) -> dict[str, Any]:
    """Predict the windows of a stretch that are not on the spool; returns an exit code and a reason."""
    try:
        predict_windows(loaded.source, loaded.spool, on_progress, range(stretch.first, stretch.stop))
    except Exception as error:
        code, reason = explain(error)
        return {"exit_code": code, "reason": reason}
    return {"exit_code": 0, "reason": ""}


WINDOWS_JOB = Job(load_windows, run_stretch)
"""What the workers of a video do."""


class WindowWorkers:
    """Predicts windows with several workers: the argument ``predict`` of ``geo4d.reconstruct``.

    Args:
        how: the workers. With Ray on several machines, the output must lie on a file system that all of them share.
        stall_s: seconds without progress after which a worker is ended, and its windows are given to another.
        settings: keywords that ``reconstruct`` gets: ``model`` by name, ``model_options``, fields of ``RunConfig``.
    """

    def __init__(self, how: WorkerSettings, *, stall_s: float | None = None, **settings: Any) -> None:
        if not isinstance(settings.get("model", "tiny"), str):
            raise ValueError("expected the name of a model: workers load it themselves")
        self._how, self._stall_s, self._settings = how, stall_s, settings

    def __call__(self, source: WindowSource, spool: Spool, progress: Progress) -> None:
        """
        Raises:
            BatchError: a window failed (with its exit code), or workers would give other results than this process.
            ResourceError: workers die over and over.
            DiskFull: no room for the pictures.
        """
        if all(spool.path(index).is_file() for index in range(len(source.plan.windows))):
            predict_windows(source, spool, progress)
            return
        order = make_order(source, spool, progress)
        info = source.predictor.info
        stretches = plan_stretches(source.plan, info, order.evidence, order.folder, self._how.workers)
        if info.carries and len(stretches) < self._how.workers:
            log.warning(
                "the windows of %s go on from each other within a shot: %d of %d workers have something to do",
                info.name,
                len(stretches),
                self._how.workers,
            )
        expected = _identity(info, {"device": source.plan.device, "versions": versions()}, source)
        settings = {**self._settings, "order": order}
        total = len(source.plan.windows)
        with make_engine(self._how, WINDOWS_JOB, settings, stall_s=self._stall_s) as engine:
            for stretch, note in work_off(
                engine,
                stretches,
                self._how.workers,
                on_ready=lambda found: require_same(expected, found, "this process"),
                hint="finished windows stay for --resume: use fewer workers, or none to see the fault",
                choose=choose_stretch,
                on_look=lambda: progress("predict", _count_finished(spool), total),
            ):
                if note["exit_code"]:
                    raise BatchError(f"{stretch.name}: {note['reason']}", note["exit_code"])


def make_order(source: WindowSource, spool: Spool, progress: Progress) -> WindowOrder:
    """What workers must know; pictures that the run has not kept are kept now.

    Raises:
        DiskFull: no room for them.
    """
    clip, plan = source.clip, source.plan
    assert isinstance(clip, Video)
    has_evidence = source.evidence is not None
    sizes = kept_sizes(clip.size, plan.model_size) if has_evidence else (plan.model_size,)
    pictures = KeptPictures(spool.folder, sizes, clip.num_frames)
    if not pictures.complete:
        require_space(spool.folder, pictures.num_bytes(sizes, clip.num_frames))
        for done, _ in enumerate(clip.keep_on_the_way(pictures, plan.model_size)):
            progress("keep pictures", done + 1, clip.num_frames)
    return WindowOrder(
        str(spool.folder.absolute()),
        plan,
        source.seed,
        spool.precision,
        sizes,
        clip.times_s,
        clip.fps,
        source.intrinsics,
        has_evidence,
        source.context is not None,
    )


def plan_stretches(
    plan: RunPlan, info: PredictorInfo, evidence: bool, folder: str, workers: int
) -> list[Stretch]:
    """The windows of a run in stretches that do not depend on each other, in order.

    A stretch is a few windows; whole groups, where the predictor takes several at once; a shot, where its windows go on
    from each other.
    """
    total = len(plan.windows)
    if info.carries:
        shots = [next(i for i, (a, b) in enumerate(plan.scenes) if a <= w[0] < b) for w in plan.windows]
        starts = [i for i in range(total) if i == 0 or shots[i] != shots[i - 1]]
    else:
        group = 1 if evidence else info.windows_at_once
        together = min(TOGETHER, -(-total // (2 * workers)))
        starts = list(range(0, total, -(-together // group) * group))
    return [Stretch(a, b, folder) for a, b in zip(starts, [*starts[1:], total], strict=True)]


def choose_stretch(free: set[int], last: int | None) -> int:
    """The next stretch for a worker: the one behind its last, or the second half of the longest run of free ones."""
    if last is not None and last + 1 in free:
        return last + 1
    runs: list[list[int]] = []
    for number in sorted(free):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    longest = max(runs, key=len)
    # Somebody is on the way to the first of a run, unless this is the beginning.
    return longest[0] if longest[0] == 0 else longest[len(longest) // 2]


def _count_finished(spool: Spool) -> int:
    return sum(1 for _ in spool.folder.glob("window_*_try0.zarr.zip"))


def _identity(
    info: PredictorInfo, identity: Mapping[str, Any], source: WindowSource | None = None
) -> dict[str, Any]:
    """What must be the same in all processes of a run."""
    model = identity["model"] if source is None else plain(describe_model(source.predictor))
    return {"model": model, "device": identity["device"], "versions": identity["versions"]}
