"""Evidence from motion for a run: cameras from tracks once per clip, then plane-sweep depth for each window.

The predictor gets it as its ``evidence``; the fusion gets the cameras as one more trajectory.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.pose import RELIABLE, pose_frames
from geo4d.cameras.types import CameraSolveConfig, MotionCameras, ShotMotion
from geo4d.evidence.agreement import agreeing
from geo4d.evidence.frames import (
    FrameEvidence,
    MotionConfig,
    MotionEvidence,
    evidence_for_window,
    first_frame_needed,
    fit_motion,
    iter_evidence,
)
from geo4d.evidence.moving import MovingMaps
from geo4d.formats.arrays import holds_arrays, load_arrays, save_arrays
from geo4d.fusion.alignment import Alignment, CameraEvidence
from geo4d.fusion.dense import iter_depth
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.geometry.poses import interpolate_rigid, inverse, transform
from geo4d.optimise.scratch import give_back_memory
from geo4d.run.first_pass import sweep_size
from geo4d.run.predict import mask_nonfinite
from geo4d.run.spool import EVIDENCE, Spool
from geo4d.tracks.types import TRACKING_SIZE
from geo4d.types import EvidenceMaps, Prediction, Window
from geo4d.video.io import Video, fit_size
from geo4d.video.kept import KeptClip, KeptPictures

MOTION = "motion.zarr.zip"

LEAP = 40
"""Frames that are worth sweeping, though no window wants them, rather than starting again behind them."""

SURE_FOCAL = 0.1
"""Spread of the logarithm of a focal length from tracks, lens distortion unknown, below which the fusion holds it."""

SURELY_MOVING = 0.8
"""Probability of moving above which a sweep loses confidence; below it a still wall loses more than a mover gains."""

_ARRAYS = ("c2w", "intrinsics", "confidence", "points", "point_shot", "depth_range")


def find_motion(
    clip: Video,
    known_intrinsics: Float[Tensor, "3 3"] | None,
    folder: Path,
    progress: Callable[[str, int, int], None],
    *,
    pictures: KeptPictures | None = None,
    zoom: bool | None = None,
) -> MotionCameras:
    """Cameras of the clip from tracks, found once per run and kept in ``folder`` for a resumed one.

    Args:
        known_intrinsics: in pixels of frames of ``clip.size``.
        pictures: made in the same pass, where they are not complete; the clip then reads from them.
        zoom: the focal length changes from frame to frame; None: where the tracks need that.
    """
    path = folder / MOTION
    if pictures is not None and pictures.complete:
        clip.read_from(pictures)
        pictures = None
    if not holds_arrays(path):
        size = fit_size(clip.size, TRACKING_SIZE)
        known = None if known_intrinsics is None else resize_intrinsics(known_intrinsics, clip.size, size)
        motion = fit_motion(
            clip.frames(size) if pictures is None else clip.keep_on_the_way(pictures, size),
            known_intrinsics=known,
            config=MotionConfig(cameras=CameraSolveConfig(zoom=zoom)),
            progress=lambda done: progress("track points", done, clip.num_frames),
            scratch=folder,
        )
        arrays = {name: getattr(motion, name).numpy() for name in _ARRAYS}
        # As text: some spreads are infinite, which JSON proper does not know.
        text = json.dumps([asdict(shot) for shot in motion.shots])
        save_arrays(path, arrays, {"size": list(motion.size), "shots": text})
        give_back_memory()  # of the tracks and of what the cameras were solved with
    return load_motion(folder)


def load_motion(folder: Path) -> MotionCameras:
    """The cameras that ``find_motion`` has left in a folder.

    Raises:
        InputError: they are not there, or damaged.
    """
    arrays, attributes = load_arrays(folder / MOTION)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    shots = tuple(
        ShotMotion(**{**shot, "starts": tuple(tuple(start) for start in shot["starts"])})
        for shot in json.loads(attributes["shots"])
    )
    height, width = attributes["size"]
    return MotionCameras(size=(height, width), shots=shots, **tensors)


class WindowEvidence:
    """Evidence about any window of a clip; cheapest when windows come in the order of their last frames."""

    def __init__(
        self,
        motion: MotionCameras,
        clip: Video | KeptClip,
        size: tuple[int, int],
        windows: Sequence[Sequence[int]],
        spool: Spool | None = None,
        moving: MovingMaps | None = None,
    ) -> None:
        """Args:
        size: (height, width) of the maps.
        windows: frames of the windows of the run.
        moving: takes the confidence from what moves, where a sweep finds nothing but chance.
        spool: also keeps what motion says as predictions for the fusion.
        """
        self._motion, self._clip, self._size, self._spool = motion, clip, size, spool
        self._sweep_size = sweep_size(size)
        longest = max((run[-1] - run[0] + 1 for window in windows for run in stretches(window)), default=1)
        self._keep = max(64, 2 * longest)
        self._moving = moving
        self._evidence: MotionEvidence | None = None
        self._swept_from = 0

    def __call__(self, window: Window) -> EvidenceMaps:
        wanted = window.frame_indices.tolist()
        maps = evidence_for_window(
            self._motion, [found for run in stretches(wanted) for found in self._frames(run)]
        )
        maps = replace(maps, moving=self._probabilities(wanted, maps.mask))
        if len(window.frame_indices) > 1 and int(window.frame_indices.diff().max()) > 1:
            return maps  # the same depth and cameras as in the plain windows: nothing new for the fusion
        if self._spool is not None and not self._spool.path(window.index, EVIDENCE).is_file():
            prediction = evidence_prediction(window, maps, self._motion)
            if prediction is not None:
                self._spool.write(mask_nonfinite(prediction), EVIDENCE)
        return maps

    def _probabilities(
        self, frames: Sequence[int], like: Bool[Tensor, "V H W"]
    ) -> Float[Tensor, "V H W"] | None:
        """Of moving; 0 in frames without cameras, of which there is no evidence either."""
        if self._moving is None:
            return None
        found = [self._moving.at(t, (like.shape[1], like.shape[2])) for t in frames]
        return torch.stack([torch.zeros(like.shape[1:]) if maps is None else maps for maps in found])

    def _frames(self, run: Sequence[int]) -> list[FrameEvidence]:
        """Evidence about frames that lie near each other; sweeps from where it stands, or anew from before them."""
        # Frames before the one that sweeping began for lack neighbours: windows that go back begin anew.
        goes_back = run[0] < self._swept_from
        if self._evidence is None or goes_back or not self._evidence.reaches(run[0], LEAP):
            first, self._swept_from = first_frame_needed(run[0]), run[0]
            frames = (self._clip.read([t], self._sweep_size)[0] for t in range(first, self._clip.num_frames))
            # Here and not for each window: most frames lie in two of them.
            swept = (
                self._still(found.resized(self._size))
                for found in iter_evidence(self._motion, frames, first_frame=first)
            )
            self._evidence = MotionEvidence(self._motion, swept, keep=self._keep)
        return self._evidence.frames(run)

    def _still(self, found: FrameEvidence) -> FrameEvidence:
        """Without what moves, and without unsure evidence that contradicts the sure one around it."""
        probability = None if self._moving is None else self._moving.at(found.frame_index, self._size)
        kept = agreeing(found.disparity, found.confidence, probability)
        found = replace(found, confidence=torch.where(kept, found.confidence, 0.0))
        if probability is None:
            return found
        still = ((1 - probability) / (1 - SURELY_MOVING)).clamp(0, 1)
        return replace(found, confidence=found.confidence * still)


def kept_evidence(
    spool: Spool, clip: Video | KeptClip, size: tuple[int, int], windows: Sequence[Sequence[int]]
) -> WindowEvidence:
    """Evidence in a process of its own, from what ``find_motion`` and ``find_moving`` have left in the spool's folder.

    Args:
        clip: has frames of ``sweep_size(size)``.
        size, windows: as of ``WindowEvidence``.
    Raises:
        InputError: cameras or maps are not there, or damaged.
    """
    motion = load_motion(spool.folder)
    return WindowEvidence(motion, clip, size, windows, spool, MovingMaps(spool.folder, motion))


def stretches(frames: Sequence[int]) -> list[list[int]]:
    """Frames of a window, cut where it leaps over more than ``LEAP`` frames."""
    runs: list[list[int]] = []
    for t in frames:
        if runs and 0 < t - runs[-1][-1] <= LEAP:
            runs[-1].append(t)
        else:
            runs.append([t])
    return runs


def evidence_prediction(window: Window, maps: EvidenceMaps, motion: MotionCameras) -> Prediction | None:
    """What motion says about a window as one more prediction for the fusion; None where it says nothing about depth.

    The spread of a depth is what the errors of its match, of the cameras and of the focal length are worth at the
    parallax of the pixel, more where the sweep is not sure of the match: with little parallax the evidence hardly counts
    against the network, with much it leads.
    """
    first, last = int(window.frame_indices.min()), int(window.frame_indices.max())
    shot = motion.shot_of(first)
    if shot.kind != "parallax" or last >= shot.stop:
        return None
    if maps.c2w is None or maps.confidence is None or maps.log_depth_spread is None:
        return None
    c2w = maps.c2w.double()
    to_window = (inverse(c2w[:1]) @ c2w).float()
    depth = maps.points[..., 2]
    known = torch.isfinite(depth) & torch.isfinite(maps.log_depth_spread)
    spread = torch.where(known, depth * maps.log_depth_spread, depth) * (1 + 4 * (1 - maps.confidence))
    return Prediction(
        frame_indices=window.frame_indices,
        times_s=window.times_s,
        window_index=window.index,
        point_map=torch.stack(
            [transform(pose, points) for pose, points in zip(to_window, maps.points, strict=True)]
        ),
        point_frame="window",
        point_z_offset=0.0,
        point_uncertainty=spread,
        ray_c2w=to_window,
        intrinsics=maps.intrinsics,
        valid=maps.mask & known,
        provenance={"predictor": "motion"},
    )


def camera_evidence(
    motion: MotionCameras, scenes: Sequence[tuple[int, int]], size: tuple[int, int]
) -> CameraEvidence:
    """The cameras from tracks as the fusion takes them.

    Where tracks break inside a scene, the pieces have worlds of their own; only the longest one of a scene counts. The
    frames around it are taken to continue it: interpolated between frames that are known, held still at the ends. A
    predictor's guess there may leap by more than the whole path.

    Args:
        scenes: [start, end) of each.
        size: (height, width) of the maps.
    """
    confidence = torch.zeros_like(motion.confidence)
    c2w = motion.c2w.double()
    focal_known = torch.zeros(len(confidence), dtype=torch.bool)
    zooms = torch.zeros(len(confidence), dtype=torch.bool)
    for start, end in scenes:
        pieces = [(max(start, s.start), min(end, s.stop), s.kind) for s in motion.shots]
        a, b, kind = max(pieces, key=lambda piece: piece[1] - piece[0])
        if kind != "unknown":
            confidence[a:b] = motion.confidence[a:b]
            if bool((confidence[a:b] > 0).any()):
                c2w[start:end] = _continued(c2w[start:end], confidence[start:end] > 0)
                confidence[start:end] = confidence[start:end].clamp(min=RELIABLE)
        shot = motion.shot_of(a)
        # An assumed focal length is held, too, where swept points come with it: they fit no other.
        held = kind == "parallax" or (shot.focal_spread < SURE_FOCAL and not shot.focal_assumed)
        focal_known[start:end] = held and (a, b) == (start, end)
        zooms[start:end] = shot.zoom
    return CameraEvidence(
        c2w=c2w,
        intrinsics=resize_intrinsics(motion.intrinsics.double(), motion.size, size),
        confidence=confidence.double(),
        focal_known=focal_known,
        zooms=zooms,
    )


def _continued(c2w: Float[Tensor, "T 4 4"], known: Bool[Tensor, " T"]) -> Float[Tensor, "T 4 4"]:
    """Poses of all frames from the known ones: on the way between two, still before the first and after the last."""
    rows = known.nonzero()[:, 0]
    frames = torch.arange(len(c2w))
    after = torch.searchsorted(rows, frames).clamp(max=len(rows) - 1)
    before = (torch.searchsorted(rows, frames, right=True) - 1).clamp(min=0)
    gap = rows[after] - rows[before]
    fraction = torch.where(gap > 0, (frames - rows[before]) / gap.clamp(min=1), 0.0)
    between = interpolate_rigid(c2w[rows[before]], c2w[rows[after]], fraction.to(c2w))
    return torch.where(known[:, None, None], c2w, between)


def place_cameras(
    alignment: Alignment,
    predictions: Sequence[Prediction],
    clip: Video,
    *,
    intrinsics_known: bool,
    per_frame_scale: bool,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> tuple[Alignment, MotionCameras]:
    """Cameras for predictions that have none: tracked points, lifted by the aligned depth.

    Args:
        alignment: of camera-frame predictions; its intrinsics start the solve.
        intrinsics_known: keep them.
        per_frame_scale: let every frame's depth change by a factor, for models that see one picture at a time (each
            window is one frame).
        folder: for work files.
    """
    size = fit_size(clip.size, TRACKING_SIZE)

    def frames() -> Iterator[Tensor]:
        for t, frame in enumerate(clip.frames(size)):
            progress("track points", t + 1, clip.num_frames)
            yield frame

    motion = pose_frames(
        frames(),
        (
            torch.where(torch.isfinite(m.depth), m.depth, torch.nan)
            for m in iter_depth(alignment, predictions)
        ),
        resize_intrinsics(alignment.intrinsics, alignment.size, size),
        scene=alignment.scene.tolist(),
        per_frame_scale=per_frame_scale,
        config=CameraSolveConfig(depth_focal_spread=0.0) if intrinsics_known else None,
        scratch=folder,
    )
    similarity = alignment.window_similarity
    if per_frame_scale and motion.depth_scale is not None:
        similarity = similarity.clone()
        for window, seen in enumerate(alignment.window_frames):
            similarity[window, :3, :3] *= float(motion.depth_scale[int(seen[0])])
    placed = replace(
        alignment,
        c2w=motion.c2w.double(),
        intrinsics=resize_intrinsics(motion.intrinsics.double(), motion.size, alignment.size),
        window_similarity=similarity,
        reliable=alignment.reliable & (motion.confidence >= RELIABLE),
    )
    return placed, motion


def _finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if math.isfinite(value) else None


def describe(motion: MotionCameras) -> list[dict[str, object]]:
    """What the tracks say about each shot, as JSON values."""
    return [
        {
            "start": shot.start,
            "stop": shot.stop,
            "kind": shot.kind,
            "focal": shot.focal,
            "focal_spread": _finite(shot.focal_spread),
            "focal_assumed": shot.focal_assumed,
            "zoom": shot.zoom,
            "parallax": shot.parallax,
            "path_scale": "that of depth" if shot.kind == "parallax" else "not determined",
            "depth_spread": _finite(shot.depth_spread),
            "camera_error": _finite(shot.camera_error),
            "num_points": shot.num_points,
            "statement": shot.statement,
            "confidence": float(np.mean(motion.confidence[shot.start : shot.stop].numpy())),
        }
        for shot in motion.shots
    ]
