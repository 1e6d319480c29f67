"""Metres for a result: from a known path of the camera, or from measured depth.

Depth and path of a scene share one unknown factor. It is measured once the windows are aligned, and applied where the
result is written; nothing before that depends on it, so a run can go on with another trajectory (``--resume``).

Measured depth tells more: maps and path are each compared with it, the path by tracked points that are lifted by the
measured depth and must be met again. Where the two of a result differ by some percent, both come out right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.cameras.pose import RELIABLE, fit_trajectory_scale, track_frames
from geo4d.cameras.types import MotionCameras
from geo4d.cameras.with_depth import sample_log_depth
from geo4d.config import RunConfig
from geo4d.errors import GeometryError
from geo4d.formats.trajectories import load_trajectory
from geo4d.fusion.alignment import Alignment
from geo4d.fusion.dense import iter_depth
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.geometry.paths import PIECES, fit_path
from geo4d.run.frame_poses import FramePoses, frame_poses
from geo4d.tracks.sources import followed
from geo4d.tracks.types import TRACKING_SIZE, Tracks
from geo4d.types import Prediction
from geo4d.video.depths import DepthFolder, open_depths
from geo4d.video.io import Video, fit_size

KNOWN_SCALE = 0.1
"""Standard deviation of the logarithm of the factor from which on a result is not called metric."""

DEPTH_FRAMES = 48
"""Frames of a scene whose depth is compared with measured depth, spread evenly."""

LEAST_PIXELS = 64
"""Measured pixels that a frame must have to be compared."""


@dataclass(frozen=True)
class Metric:
    """What makes a result metric.

    Attributes:
        factor: [T] metres per unit of the alignment, one value a scene.
        path_factor: [T] the same of the path of the camera.
        c2w: given poses that take the place of the solved ones, or None.
        details: how it was found, JSON values; ``statement`` is for people.
    """

    factor: Float[Tensor, " T"]
    path_factor: Float[Tensor, " T"]
    c2w: Float[Tensor, "T 4 4"] | None
    details: dict[str, Any]

    def applied(self, alignment: Alignment) -> Alignment:
        """Cameras in metres; for what is written, since maps are fused in the unit of the windows."""
        c2w = alignment.c2w
        if self.c2w is not None:
            c2w = self.c2w.to(alignment.intrinsics)
        elif c2w is not None:
            c2w = c2w.clone()
            c2w[:, :3, 3] *= self.path_factor.to(c2w)[:, None]
        diagnostics = {**alignment.diagnostics, "metric": self.details}
        return replace(alignment, c2w=c2w, scale_kind="metric", diagnostics=diagnostics)


def open_metric(clip: Video, config: RunConfig) -> KnownPath | KnownDepth | None:
    """What the settings name to measure metres with, read and matched to the frames before the work begins.

    Raises:
        InputError: the file or folder is missing or damaged, its times do not fit the frames, or it does not move.
    """
    if config.trajectory is not None:
        trajectory = load_trajectory(config.trajectory)
        given = frame_poses(
            trajectory,
            clip.times_s,
            clip.source_frames,
            clip.num_source_frames,
            clip.path,
            config.time_offset,
        )
        return KnownPath(given, config.trajectory_use == "poses")
    if config.depth is not None:
        folder = open_depths(config.depth, clip, unit=config.depth_unit, time_offset_s=config.time_offset)
        return KnownDepth(folder, clip)
    return None


@dataclass(frozen=True, eq=False)
class KnownPath:
    """The path of the camera is known in metres.

    Attributes:
        given: its poses at the frames.
        as_poses: they take the place of the solved ones.
    """

    given: FramePoses
    as_poses: bool

    def __post_init__(self) -> None:
        if self.as_poses:
            self.given.require_all()

    @property
    def notes(self) -> tuple[str, ...]:
        """Statements for the plan."""
        use = "poses and scale are those of" if self.as_poses else "the scale is that of"
        return (f"{use} {self.given.statement}",)

    def measure(
        self, alignment: Alignment, predictions: Sequence[Prediction], motion: MotionCameras | None
    ) -> Metric:
        """One factor a scene, from the positions of both paths; see ``geometry.paths.fit_path``.

        Raises:
            GeometryError: there are no cameras, a scene has no parallax or too few frames in common, or its paths do
                not resemble each other.
        """
        if alignment.c2w is None:
            raise GeometryError("the result has no cameras to compare with the trajectory")
        trusted = alignment.reliable.cpu() & self.given.matched
        if motion is not None and len(motion.confidence) > 1:
            trusted &= motion.confidence.cpu() >= RELIABLE
        centres = alignment.c2w[:, :3, 3].cpu().double()
        factor = torch.ones(alignment.num_frames, dtype=torch.float64)
        scenes: list[dict[str, Any]] = []
        for scene, frames in frames_of_scenes(alignment.scene.cpu()):
            require_parallax(motion, frames, scene)
            rows = frames[trusted[frames]]
            try:
                fit = fit_path(centres[rows], self.given.c2w[rows, :3, 3])
            except ValueError as error:
                raise _undetermined(scene, str(error)) from error
            if fit.uncertainty >= KNOWN_SCALE:
                raise _undetermined(
                    scene,
                    f"the path of the result and the given one differ by {fit.residual:.3g} m after the best similarity, "
                    f"where the given one extends over {fit.extent:.3g} m",
                )
            factor[frames] = fit.scale
            scenes.append(
                {
                    "scene": scene,
                    "metres_per_unit": fit.scale,
                    "scale_uncertainty": fit.uncertainty,
                    "frames_compared": len(rows),
                    "frames_left_out": int((~fit.used).sum()),
                    "residual_m": fit.residual,
                    "extent_m": fit.extent,
                    "result_to_trajectory": _rigid_part(fit.similarity, fit.scale),
                }
            )
        worst = max(scenes, key=lambda s: s["scale_uncertainty"])
        use = "poses and scale are those of" if self.as_poses else "the scale is that of"
        statement = (
            f"metric: {use} {self.given.statement}; the paths differ by {worst['residual_m']:.3g} m over an extent of "
            f"{worst['extent_m']:.3g} m, so the scale is known to about {100 * worst['scale_uncertainty']:.1f} %"
        )
        details = {
            "by": "trajectory",
            "use": "poses" if self.as_poses else "scale",
            "source": self.given.source,
            "scenes": scenes,
            "statement": statement,
        }
        return Metric(factor, factor, self.given.c2w if self.as_poses else None, details)


@dataclass(frozen=True, eq=False)
class KnownDepth:
    """Depth was measured beside the video.

    Attributes:
        folder: the files, matched to the frames.
        clip: the frames; what was undistorted there is undistorted here.
    """

    folder: DepthFolder
    clip: Video

    @property
    def notes(self) -> tuple[str, ...]:
        """Statements for the plan."""
        return tuple(f"the scale is that of measured depth; {note}" for note in self.folder.notes[-1:])

    def measure(
        self, alignment: Alignment, predictions: Sequence[Prediction], motion: MotionCameras | None
    ) -> Metric:
        """Factors of every scene. Of the maps: the median over frames of the median ratio in each. Of the path: by
        tracked points; that of the maps where there is no parallax.

        Raises:
            GeometryError: a scene has no measured depth where the result has some, or the two do not resemble each other.
        """
        factor = torch.ones(alignment.num_frames, dtype=torch.float64)
        path_factor = factor.clone()
        seen = self._points_seen(alignment, motion)
        scenes: list[dict[str, Any]] = []
        for scene, frames in frames_of_scenes(alignment.scene.cpu()):
            rows = [int(t) for t in frames if self.folder.frames[int(t)] >= 0]
            if len(rows) > DEPTH_FRAMES:
                rows = [rows[int(i)] for i in np.linspace(0, len(rows) - 1, DEPTH_FRAMES).round()]
            ratios = self._ratios(alignment, predictions, rows)
            if not ratios:
                raise _undetermined(
                    scene,
                    f"no frame has {LEAST_PIXELS} pixels with both measured depth and depth of the result",
                )
            middle = float(np.median([np.median(r) for r in ratios]))
            spread = 1.4826 * float(np.median(np.abs(np.concatenate(ratios) - middle)))
            uncertainty = spread / PIECES**0.5
            if uncertainty >= KNOWN_SCALE:
                raise _undetermined(
                    scene,
                    f"the depth of the result and the measured one differ by {100 * spread:.0f} % after one factor",
                )
            factor[frames] = path_factor[frames] = float(np.exp(middle))
            path = None if seen is None else self._path_factor(alignment, seen, motion, frames)
            if path is not None:
                path_factor[frames] = path
            scenes.append(
                {
                    "scene": scene,
                    "metres_per_unit": float(np.exp(middle)),
                    "metres_per_unit_of_the_path": path,
                    "scale_uncertainty": uncertainty,
                    "frames_compared": len(ratios),
                    "depth_difference": spread,
                }
            )
        worst = max(scenes, key=lambda s: s["scale_uncertainty"])
        statement = (
            f"metric: the scale is that of measured depth; {self.folder.notes[-1]}; depths differ by "
            f"{100 * worst['depth_difference']:.1f} % after one factor, so the scale is known to about "
            f"{100 * worst['scale_uncertainty']:.1f} %"
        )
        paths = [(s["metres_per_unit_of_the_path"], s["metres_per_unit"]) for s in scenes]
        apart = [math.log(path / maps) for path, maps in paths if path is not None]
        if apart:
            statement += (
                "; the path has its scale by tracked points on measured depth, "
                f"{100 * math.expm1(max(apart, key=abs)):+.1f} % to that of the maps"
            )
        untold = [str(s["scene"]) for s in scenes if s["metres_per_unit_of_the_path"] is None]
        if untold and alignment.c2w is not None:
            statement += (
                f"; the path of scene {', '.join(untold)} takes the scale of the maps: no tracked points with measured "
                "depth have parallax"
            )
        source = {
            "folder": self.folder.folder.name,
            "unit_m": self.folder.unit,
            "matched_frames": int((self.folder.frames >= 0).sum()),
        }
        details = {"by": "depth", "source": source, "scenes": scenes, "statement": statement}
        return Metric(factor, path_factor, None, details)

    def _points_seen(
        self, alignment: Alignment, motion: MotionCameras | None
    ) -> tuple[Tracks, Float[Tensor, " O"]] | None:
        """Tracks of the clip and the measured log depth of every observation; None where no path could be compared."""
        if alignment.c2w is None or (
            motion is not None and all(shot.kind != "parallax" for shot in motion.shots)
        ):
            return None
        frames = self.clip.frames(fit_size(self.clip.size, TRACKING_SIZE))
        tracks = track_frames(frames, None, alignment.scene.tolist(), followed)
        nothing = torch.full((8, 8), torch.nan)
        maps = (
            torch.from_numpy(self._measured(t)) if self.folder.frames[t] >= 0 else nothing
            for t in range(alignment.num_frames)
        )
        return tracks, sample_log_depth(tracks, maps)

    def _path_factor(
        self,
        alignment: Alignment,
        seen: tuple[Tracks, Float[Tensor, " O"]],
        motion: MotionCameras | None,
        frames: Tensor,
    ) -> float | None:
        """Metres per unit of a scene's path; None where it has no parallax."""
        assert alignment.c2w is not None
        tracks, log_depth = seen
        inside = torch.zeros(alignment.num_frames, dtype=torch.bool)
        inside[frames] = True
        inside &= alignment.reliable.cpu()
        if motion is not None and len(motion.confidence) > 1:
            inside &= motion.confidence.cpu() >= RELIABLE
        try:
            require_parallax(motion, frames, 0)
            return fit_trajectory_scale(
                tracks,
                log_depth,
                resize_intrinsics(alignment.intrinsics.cpu(), alignment.size, tracks.size),
                alignment.c2w.cpu(),
                inside,
            )
        except (GeometryError, ValueError):
            return None

    def _measured(self, frame: int) -> np.ndarray:
        """[H, W] measured depth of a frame that has a file, seen as its picture is."""
        measured = self.folder.read(frame)
        if self.clip.lens is not None:
            measured = self.clip.lens.undistorted_map(measured, self.clip.source_size)
        return measured

    def _ratios(
        self, alignment: Alignment, predictions: Sequence[Prediction], frames: Sequence[int]
    ) -> list[np.ndarray]:
        """Per frame, the logarithms of measured / found depth where both are known and the found one is trusted."""
        ratios = []
        for maps in iter_depth(alignment, predictions, frames=frames):
            measured = self._measured(maps.frame_index)
            found, sure = maps.depth.cpu().numpy(), maps.confidence.cpu().numpy()
            rows, cols = (
                ((np.arange(n) + 0.5) * m / n).astype(int)
                for n, m in zip(found.shape, measured.shape, strict=True)
            )
            there = measured[np.ix_(rows, cols)]
            both = np.isfinite(there) & np.isfinite(found) & (found > 0)
            if both.sum() < LEAST_PIXELS:
                continue
            both &= sure >= np.median(sure[both])  # the surer half of the frame
            ratios.append(np.log(there[both] / found[both]))
        return ratios


def frames_of_scenes(scene: Tensor) -> list[tuple[int, Tensor]]:
    """(number, frames) of every scene."""
    return [(int(number), (scene == number).nonzero()[:, 0]) for number in scene.unique()]


def require_parallax(motion: MotionCameras | None, frames: Tensor, scene: int) -> None:
    """
    Raises:
        GeometryError: the tracks say that the camera did not move through the scene.
    """
    if motion is None:
        return
    first, last = int(frames.min()), int(frames.max())
    shots = [shot for shot in motion.shots if shot.start <= last and shot.stop > first]
    longest = max(shots, key=lambda shot: min(shot.stop, last + 1) - max(shot.start, first))
    if longest.kind != "parallax":
        raise _undetermined(scene, f"its tracks show no translation ({longest.statement})")


def _undetermined(scene: int, why: str) -> GeometryError:
    return GeometryError(
        f"the scale of scene {scene} is not determined: {why}; nothing was written. Without --trajectory or --depth the "
        "result is up to scale (with --resume nothing is computed twice); --start and --stop choose other frames"
    )


def _rigid_part(similarity: Tensor, scale: float) -> list[list[float]]:
    """World of the metric result -> world of the trajectory, metres."""
    rigid = similarity.clone()
    rigid[:3, :3] /= scale
    return [[float(value) for value in row] for row in rigid]
