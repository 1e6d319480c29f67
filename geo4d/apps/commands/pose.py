"""``geo4d pose``: a reconstruction with new cameras."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class PoseOptions:
    """Solve the cameras of a reconstruction anew from tracked points and its depth, and write a new one."""

    result: Annotated[Path, tyro.conf.Positional]
    """Folder that 'geo4d reconstruct' wrote; it is left as it is."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """New folder."""
    mask: Path | None = None
    """Video or folder of pictures, bright where things move; none takes the reconstruction's own."""
    mask_radius: float = 0.005
    """How far masks are grown, share of the picture's diagonal."""
    intrinsics: tuple[float, float, float, float] | None = None
    """Known fx fy cx cy in pixels of the source as it is shown (upright, square pixels), pixel centres at +0.5."""
    trajectory: Path | None = None
    """TUM file with one known pose per frame; only its scale is fitted."""
    per_frame_scale: bool = False
    """Let every frame's depth change by a factor of its own, for models that see one picture at a time."""
    tracks: Literal["klt", "sift"] = "klt"
    """How points are found again: followed from frame to frame, or by SIFT matches (slower, for wide turns)."""
    overwrite: bool = False
    """Replace an existing output."""
    keep_going: bool = False
    """Exit with 0 also when the result is doubtful: most frames have no reliable camera."""


def run(options: PoseOptions) -> int:
    """Pose, then say what the tracks told."""
    from geo4d.results.verdict import judge_result
    from geo4d.run.repose import repose
    from geo4d.tracks.sift import SiftMatcher

    after = repose(
        options.result,
        options.output,
        mask=options.mask,
        mask_radius=options.mask_radius,
        intrinsics=options.intrinsics,
        trajectory=options.trajectory,
        per_frame_scale=options.per_frame_scale,
        matcher=SiftMatcher() if options.tracks == "sift" else None,
        overwrite=options.overwrite,
    )
    pose = after.diagnostics["pose"]
    for shot in pose.get("shots", []):
        print(shot["statement"])
    if "trajectory_scale" in pose:
        print(f"trajectory scaled by {pose['trajectory_scale']:.6g}")
    print(f"wrote {options.output}")
    verdict = judge_result(after)
    print("\n".join(verdict.lines()))
    verdict.require(keep_going=options.keep_going)
    return 0
