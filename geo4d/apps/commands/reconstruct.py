"""Reconstruct the 4D geometry of a video: depth, cameras, confidence and what moves, for every frame."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from geo4d.config import RunConfig


@dataclass(frozen=True)
class ReconstructOptions:
    """Reconstruct the 4D geometry of a video."""

    video: Annotated[Path, tyro.conf.Positional]
    """Video file or folder of frames."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the result."""
    model: str = "tiny"
    """Predictor: tiny (bundled), geo4d, geometrycrafter, geometrycrafter-determ, moge."""
    overwrite: bool = False
    """Replace an existing result, or forget an unfinished run."""
    resume: bool = False
    """Go on with an unfinished run; finished windows are not computed again."""
    ground_truth: Path | None = None
    """Folder with ground truth of this video; the result is scored against it."""
    json: Path | None = None
    """File for the scores as JSON."""
    quiet: bool = False
    """Print errors only."""
    settings: tyro.conf.OmitArgPrefixes[RunConfig] = field(default_factory=RunConfig)


def run(options: ReconstructOptions) -> int:
    """Reconstruct, then say what came out."""
    from geo4d.apps.progress import StageBars
    from geo4d.plan import RunPlan
    from geo4d.reconstruct import reconstruct

    def show(plan: RunPlan) -> None:
        if not options.quiet:
            print("\n".join(plan.lines()), flush=True)

    settings: dict[str, Any] = {f.name: getattr(options.settings, f.name) for f in fields(RunConfig)}
    with StageBars(quiet=options.quiet) as bars:
        result = reconstruct(
            options.video,
            options.output,
            model=options.model,
            overwrite=options.overwrite,
            resume=options.resume,
            on_plan=show,
            on_progress=bars,
            **settings,
        )
    if not options.quiet:
        height, width = result.size
        unreliable = 0 if result.reliable is None else int((~result.reliable).sum())
        seconds = sum(result.diagnostics["seconds"].values())
        poses = "with camera poses" if result.has_poses else "without camera poses (the model gives none)"
        print(
            f"wrote {options.output}: {result.num_frames} frames {width}x{height}, {poses}, in {seconds:.1f} s"
        )
        if unreliable:
            print(f"{unreliable} of {result.num_frames} frames are not reliable; see 'geo4d report'")
        print(f"look at it: geo4d view {options.output}")
    return 0
