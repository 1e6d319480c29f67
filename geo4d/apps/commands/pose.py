"""``geo4d pose``: a reconstruction with new cameras."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

EXAMPLES = (
    "geo4d pose out -o posed --mask masks/",
    "geo4d pose out -o metric --trajectory poses.txt --time-offset 1403715273.26",
)


@dataclass(frozen=True)
class PoseOptions:
    """Solve the cameras of a reconstruction anew from tracked points and its depth, and write a new one."""

    result: Annotated[Path, tyro.conf.Positional]
    """Folder that 'geo4d reconstruct' wrote; it is left as it is."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """New folder."""
    mask: Path | None = None
    """Video or folder of pictures, bright where things move; none takes the reconstruction's own."""
    mask_format: Literal["bright", "xmem"] = "bright"
    """How --mask says what moves: bright pixels, or object numbers in PNG files as XMem saves them (0: background)."""
    mask_radius: float = 0.005
    """How far masks are grown, share of the picture's diagonal."""
    mask_weights: Path | None = None
    """Folder of a SAM 2 video model of transformers (extra geometrycrafter) that redraws the masks from the pictures;
    weights are never downloaded, and their licence is shown."""
    intrinsics: tuple[float, float, float, float] | None = None
    """Known fx fy cx cy in pixels of the source as it is shown (upright, square pixels), pixel centres at +0.5."""
    trajectory: Path | None = None
    """Known poses of the camera in metres, taken as they are: TUM or EuRoC csv (matched by time) or KITTI poses (a row a
    frame). The depth is scaled to them, and the result is metric."""
    trajectory_unit: Literal["metres", "unknown"] = "metres"
    """Unit of --trajectory; 'unknown' scales the trajectory to the depth instead."""
    time_offset: float = 0.0
    """Seconds to add to the times of --trajectory, so that they are those of the frames."""
    per_frame_scale: bool = False
    """Let every frame's depth change by a factor of its own, for models that see one picture at a time."""
    tracks: Annotated[str, tyro.conf.arg(metavar="NAME")] = "klt"
    """How points are found again: followed from frame to frame (klt), by matches (sift: slower, for wide turns), by XFeat
    (xfeat, xfeat-matches, xfeat-lighterglue: extra xfeat, which holds the weights), by a network whose weights you have
    (disk-lightglue, superpoint-lightglue, disk, superpoint, script), from files (spatracker), or by an installed
    plug-in: see docs/tracking.md."""
    track_weights: tuple[Path, ...] = ()
    """Files or folders with the weights of --tracks, or with tracks that were made before (spatracker); weights are never
    downloaded, and their licence is shown."""
    track_size: tuple[int, int] | None = None
    """WIDTH HEIGHT of the pictures that tracks in files count pixels in; none: the source as it is shown."""
    objective: Literal["depth", "published", "published-refined"] = "depth"
    """What is minimised: errors of points and measured depth, or the objective of GeometryCrafter's authors (their
    optimiser, 1,000 steps; holds all depth maps in memory), also followed by their refining stage."""
    depth_weight: float = 0.0
    """Weight of depths in the refining stage of 'published-refined', beside that of places in the pictures."""
    overwrite: bool = False
    """Replace an existing output."""
    keep_going: bool = False
    """Exit with 0 also when the result is doubtful: most frames have no reliable camera."""


def run(options: PoseOptions) -> int:
    """Pose, then say what the tracks told."""
    if options.trajectory is None and (options.time_offset or options.trajectory_unit != "metres"):
        raise ValueError("expected --trajectory with --time-offset and --trajectory-unit")
    from geo4d.evidence.mask_finders import Sam2Finder
    from geo4d.results.verdict import judge_result
    from geo4d.run.repose import repose, stated_size
    from geo4d.tracks.sources import track_maker

    tracked = options.track_size
    picture_size = stated_size(options.result) if tracked is None else (tracked[1], tracked[0])
    after = repose(
        options.result,
        options.output,
        mask=options.mask,
        mask_format=options.mask_format,
        mask_radius=options.mask_radius,
        mask_finder=None if options.mask_weights is None else Sam2Finder(options.mask_weights),
        intrinsics=options.intrinsics,
        trajectory=options.trajectory,
        trajectory_unit=options.trajectory_unit,
        time_offset=options.time_offset,
        per_frame_scale=options.per_frame_scale,
        tracker=track_maker(options.tracks, options.track_weights, picture_size=picture_size),
        objective=options.objective,
        depth_weight=options.depth_weight,
        overwrite=options.overwrite,
    )
    pose = after.diagnostics["pose"]
    for shot in pose.get("shots", []):
        print(shot["statement"])
    if "trajectory_scale" in pose:
        print(f"trajectory scaled by {pose['trajectory_scale']:.6g}")
    for scene, factor in enumerate(pose.get("metres_per_unit", ())):
        print(f"depth of scene {scene} scaled by {factor:.6g} m")
    print(f"wrote {options.output}")
    verdict = judge_result(after)
    print("\n".join(verdict.lines()))
    verdict.require(keep_going=options.keep_going)
    return 0
