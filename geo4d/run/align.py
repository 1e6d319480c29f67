"""Windows to one world, those that disagree with everything around them sampled again."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from geo4d.cameras.types import MotionCameras
from geo4d.config import RunConfig
from geo4d.errors import GeometryError
from geo4d.fusion.align import align
from geo4d.fusion.alignment import AlignConfig, Alignment, find_bad_windows
from geo4d.run.evidence import camera_evidence
from geo4d.run.plan import samples_per_frame
from geo4d.run.predict import Progress, WindowSource, predict_again
from geo4d.run.spool import EVIDENCE, Spool, SpooledPredictions

log = logging.getLogger(__name__)


def align_windows(
    source: WindowSource,
    spool: Spool,
    motion: MotionCameras | None,
    config: RunConfig,
    progress: Progress,
) -> tuple[Alignment, SpooledPredictions, dict[int, int]]:
    """Align all windows; those that disagree with everything around them are sampled again, a bounded number of times.

    Returns:
        the alignment, the predictions it was made from, and the try that each re-sampled window ended with.
    Raises:
        GeometryError: no frame was seen by a usable window.
    """
    plan, count = source.plan, len(source.plan.windows)
    evidence = None if motion is None else camera_evidence(motion, plan.scenes, plan.model_size)
    chosen = dict.fromkeys(range(count), 0)

    def solve(
        further: Sequence[tuple[int, int]] = (), bad: tuple[int, ...] | None = None
    ) -> tuple[Alignment, SpooledPredictions]:
        predictions = spool.sequence([*chosen.items(), *further])
        settings = AlignConfig.published() if config.fusion == "published" else AlignConfig.corrected()
        alignment = align(
            predictions,
            num_frames=source.clip.num_frames,
            config=replace(
                settings,
                focal="per_frame" if config.focal == "per_frame" else "shared",
                pixel_aspect=plan.pixel_aspect,
                seed=config.seed,
                num_samples=samples_per_frame(source.clip.num_frames, settings.num_samples),
                force_bad_windows=bad,
            ),
            known_intrinsics=source.intrinsics,
            motion=None
            if evidence is None
            else replace(evidence, windows=tuple(range(count, count + len(further)))),
            device=plan.device,
            scratch=spool.folder,
            progress=lambda stage, share: progress("align", int(100 * share), 100),
        )
        return alignment, predictions

    alignment, predictions = solve()
    for attempt in range(1, config.tries + 1):
        bad = find_bad_windows(alignment)
        if not bad or len(bad) == count:
            break
        changed = False
        for done, index in enumerate(bad):
            log.info("window %d disagrees with the others; try %d", index, attempt)
            if predict_again(source, spool, index, attempt, chosen[index]):
                chosen[index], changed = attempt, True
            elif done == 0:
                break  # no noise in this model: every further try would be the same
            progress("sample again", done + 1, len(bad))
        if not changed:
            break
        alignment, predictions = solve()
    # Windows are judged among themselves first; then the evidence joins as predictions of its own. Its windows come from
    # one set of cameras and agree far better with each other than any network's do: no new judgement by distances.
    further = [(index, EVIDENCE) for index in spool.evidence_windows()]
    if further:
        alignment, predictions = solve(further, tuple(find_bad_windows(alignment)))
    if not bool(alignment.reliable.any()):
        raise GeometryError(
            "no window gave usable geometry; look at the frames (black, all sky, fog?), or try another --seed or --model"
        )
    return alignment, predictions, {window: attempt for window, attempt in chosen.items() if attempt}
