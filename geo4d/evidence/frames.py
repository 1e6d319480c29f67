"""Evidence from motion: cameras of the video from its tracks, then plane-sweep depth with confidence, frame by frame.

Two passes over the frames, both with bounded memory: ``fit_motion`` sees them once for the cameras, ``iter_evidence``
once more for the depth. Every frame is swept once, however many windows want it; ``MotionEvidence`` hands windows their
maps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.solve import fit_cameras
from geo4d.cameras.types import CameraSolveConfig, MotionCameras
from geo4d.evidence.cost import SweepConfig
from geo4d.evidence.sweep import sweep_disparity, to_grey
from geo4d.geometry.cameras import camera_rays, resize_intrinsics
from geo4d.optimise.scratch import give_back_memory
from geo4d.optimise.threads import one_thread
from geo4d.tracks.follow import TrackBuilder, TrackConfig
from geo4d.types import EvidenceMaps, Window


@dataclass(frozen=True)
class MotionConfig:
    """Settings of the evidence from motion.

    Attributes:
        tracks: the tracker.
        cameras: the camera solver.
        sweep: the plane sweep.
        num_planes: planes per frame, even in disparity.
        look_around: frames before and after that may serve as neighbours of a frame.
        chunk: frames swept together; chunks start at multiples of it, so that a resumed run gives the same numbers.
        near_margin: the nearest plane is this share of the nearest point of the frame.
        far_margin: the farthest plane is this many times the farthest point.
        mask_confidence: maps say True where the confidence reaches this.
        low_confidence: in its place in windows where much evidence is sure (see ``usable_pixels``).
        sure_share: share of such pixels in a window that makes ``low_confidence`` count.
    """

    tracks: TrackConfig = field(default_factory=TrackConfig)
    cameras: CameraSolveConfig = field(default_factory=CameraSolveConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    num_planes: int = 48
    look_around: int = 20
    chunk: int = 8
    near_margin: float = 0.7
    far_margin: float = 3.0
    mask_confidence: float = 0.2
    low_confidence: float = 0.05
    sure_share: float = 0.2


@dataclass(frozen=True)
class FrameEvidence:
    """Evidence about one frame.

    Attributes:
        frame_index: position in the video.
        disparity: 1 / depth in the unit of the shot (median depth 1); finite and positive everywhere.
        confidence: in [0, 1]; 0 everywhere in shots without parallax.
        spread: standard deviation of the logarithm of the disparity by the errors of match, cameras and focal length at
            the parallax of the pixel; infinite in shots without parallax.
        intrinsics: pixels of the maps.
    """

    frame_index: int
    disparity: Float[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    spread: Float[Tensor, "H W"]
    intrinsics: Float[Tensor, "3 3"]

    def points(self) -> Float[Tensor, "H W 3"]:
        """Points in the frame's own camera."""
        rays = camera_rays(self.intrinsics, (self.disparity.shape[0], self.disparity.shape[1]))
        return rays / self.disparity[..., None]

    def resized(self, size: tuple[int, int]) -> FrameEvidence:
        """The same at another (height, width); every pixel takes the values of the nearest one, so that edges stay."""
        maps = torch.stack([self.disparity, self.confidence, self.spread])[None]
        disparity, confidence, spread = F.interpolate(maps, size, mode="nearest-exact")[0]
        own = (self.disparity.shape[0], self.disparity.shape[1])
        return FrameEvidence(
            self.frame_index, disparity, confidence, spread, resize_intrinsics(self.intrinsics, own, size)
        )


def fit_motion(
    frames: Iterable[Float[Tensor, "H W 3"]],
    *,
    config: MotionConfig | None = None,
    known_intrinsics: Float[Tensor, "*t 3 3"] | None = None,
    masks: Iterable[Bool[Tensor, "H W"]] | None = None,
    focal_prior: tuple[float, float] | None = None,
    progress: Callable[[int], None] | None = None,
    scratch: Path | None = None,
) -> MotionCameras:
    """Cameras of a whole video from its tracks; one frame in memory at a time.

    Args:
        frames: RGB in [0, 1], all of one size; about 500 to 640 pixels wide is a good size.
        config: see ``MotionConfig``.
        known_intrinsics: pixels of ``frames``, [3, 3] or [T, 3, 3].
        masks: True on moving things, one per frame.
        focal_prior: (median focal in pixels of ``frames``, spread of its logarithm).
        progress: called with the number of frames tracked.
        scratch: folder for work files of long videos; None takes the system's temporary one.
    Raises:
        ValueError: no frames, or frames of different sizes.
    """
    config = config or MotionConfig()
    builder = TrackBuilder(config.tracks)
    mask_iterator = iter(masks) if masks is not None else None
    for index, frame in enumerate(frames):
        builder.add(frame, next(mask_iterator) if mask_iterator is not None else None)
        if progress is not None:
            progress(index + 1)
    tracks = builder.finish()
    del builder  # what the tracks were made from is as large as they are
    give_back_memory()
    return fit_cameras(
        tracks,
        intrinsics=known_intrinsics,
        focal_prior=focal_prior,
        config=config.cameras,
        scratch=scratch,
    )


def first_frame_needed(frame: int, config: MotionConfig | None = None) -> int:
    """The frame from which ``iter_evidence`` must be fed so that ``frame`` and all after it come out as in a full run."""
    config = config or MotionConfig()
    return max(0, frame // config.chunk * config.chunk - config.look_around)


def iter_evidence(
    motion: MotionCameras,
    frames: Iterable[Float[Tensor, "H W 3"]],
    *,
    first_frame: int = 0,
    config: MotionConfig | None = None,
) -> Iterator[FrameEvidence]:
    """Sweep every frame once, in order.

    Args:
        motion: cameras of the video.
        frames: the same frames again, at the size of the wanted maps; the size of tracking may differ.
        first_frame: the number of the first of ``frames`` (see ``first_frame_needed``).
        config: see ``MotionConfig``.
    Yields:
        one result per frame; the first chunk is cut short where frames before ``first_frame`` were not given.
    """
    config = config or MotionConfig()
    num_frames = len(motion.c2w)
    buffer: OrderedDict[int, Tensor] = OrderedDict()
    source = enumerate(frames, start=first_frame)
    chunk_start = first_frame
    ended = False
    while chunk_start < num_frames:
        chunk_stop = min((chunk_start // config.chunk + 1) * config.chunk, num_frames)
        while not ended and (not buffer or next(reversed(buffer)) < chunk_stop + config.look_around - 1):
            entry = next(source, None)
            if entry is None:
                ended = True
            else:
                buffer[entry[0]] = to_grey(entry[1])[..., None]
        last = next(reversed(buffer), first_frame - 1)
        chunk_stop = min(chunk_stop, last + 1)
        if chunk_stop <= chunk_start:
            return
        yield from _sweep_chunk(motion, buffer, chunk_start, chunk_stop, config)
        chunk_start = chunk_stop
        while buffer and next(iter(buffer)) < chunk_start - config.look_around:
            buffer.popitem(last=False)


def _sweep_chunk(
    motion: MotionCameras, buffer: OrderedDict[int, Tensor], start: int, stop: int, config: MotionConfig
) -> Iterator[FrameEvidence]:
    """Frames [start, stop), shot by shot."""
    at = start
    while at < stop:
        shot = motion.shot_of(at)
        until = min(stop, shot.stop)
        low = max(shot.start, start - config.look_around, next(iter(buffer)))
        high = min(shot.stop, stop + config.look_around, next(reversed(buffer)) + 1)
        indices = list(range(low, high))
        video = torch.stack([buffer[i] for i in indices])
        size = (video.shape[1], video.shape[2])
        K = resize_intrinsics(motion.intrinsics[low:high].to(video), motion.size, size)
        ranges = _plane_ranges(motion, low, high, config) if shot.kind == "parallax" else None
        if ranges is None or len(indices) < 2:
            for i in range(at, until):
                flat = torch.ones(size, dtype=video.dtype, device=video.device)
                yield FrameEvidence(i, flat, torch.zeros_like(flat), flat * torch.inf, K[i - low])
        else:
            steps = torch.linspace(0, 1, config.num_planes)
            planes = ranges[:, :1] + steps * (ranges[:, 1:] - ranges[:, :1])
            with one_thread():  # its many small steps take twice as long when two threads share each
                found = sweep_disparity(
                    video,
                    K,
                    motion.c2w[low:high],
                    disparities=planes.to(video),
                    references=range(at - low, until - low),
                    camera_error=shot.camera_error * size[1] / motion.size[1],
                    config=config.sweep,
                )
            trust = motion.confidence[at:until].to(found.confidence)
            for k, i in enumerate(range(at, until)):
                confidence = found.confidence[k] * trust[k]
                yield FrameEvidence(i, found.disparity[k], confidence, found.spread[k], K[i - low])
        at = until


def _plane_ranges(
    motion: MotionCameras, low: int, high: int, config: MotionConfig
) -> Float[Tensor, "V 2"] | None:
    """(smallest, largest) disparity per frame; None when no frame of the run knows its depths."""
    known = motion.depth_range[low:high]
    usable = torch.isfinite(known).all(1)
    if not bool(usable.any()):
        return None
    near = torch.where(usable, known[:, 0], known[usable, 0].median())
    far = torch.where(usable, known[:, 1], known[usable, 1].median())
    near, far = near.clamp_min(1e-3) * config.near_margin, far.clamp_max(1e3) * config.far_margin
    return torch.stack([1 / far.clamp_min(1.01 * near), 1 / near], 1)


def usable_pixels(
    confidence: Float[Tensor, "*b V H W"], config: MotionConfig | None = None
) -> Bool[Tensor, "*b V H W"]:
    """Where the evidence of a window may be used.

    Where much of it is sure, the cameras are right, and then less sure pixels are mostly right, too; where little is
    sure, the less sure ones are mostly wrong.
    """
    config = config or MotionConfig()
    sure = confidence >= config.mask_confidence
    many = sure.flatten(-3).float().mean(-1) >= config.sure_share
    return sure | (many[..., None, None, None] & (confidence >= config.low_confidence))


def evidence_for_window(
    motion: MotionCameras, maps: Iterable[FrameEvidence], *, config: MotionConfig | None = None
) -> EvidenceMaps:
    """Join the evidence of some frames into what a predictor takes.

    Args:
        motion: cameras of the video.
        maps: the frames of the window, in its order.
        config: decides which pixels may be used.
    """
    chosen = list(maps)
    indices = torch.tensor([m.frame_index for m in chosen])
    confidence = torch.stack([m.confidence for m in chosen])
    return EvidenceMaps(
        points=torch.stack([m.points() for m in chosen]),
        mask=usable_pixels(confidence, config),
        scale_kind="scale",
        confidence=confidence,
        log_depth_spread=torch.stack([m.spread for m in chosen]),
        intrinsics=torch.stack([m.intrinsics for m in chosen]),
        c2w=motion.c2w[indices].to(confidence),
        camera_confidence=motion.confidence[indices].to(confidence),
    )


class MotionEvidence:
    """The evidence from motion as a ``Prior``: call it with the windows of a run, in order.

    Sweeps as far as the window reaches, and keeps only frames that later windows may still ask for.
    """

    name = "motion"

    def __init__(
        self,
        motion: MotionCameras,
        maps: Iterator[FrameEvidence],
        *,
        keep: int = 64,
        config: MotionConfig | None = None,
    ) -> None:
        """Args:
        motion: cameras of the video.
        maps: from ``iter_evidence``.
        keep: frames kept behind the newest one; at least the window span.
        config: see ``MotionConfig``.
        """
        self.motion, self.config = motion, config or MotionConfig()
        self._maps, self._keep = maps, keep
        self._ready: OrderedDict[int, FrameEvidence] = OrderedDict()

    def __call__(self, window: Window) -> EvidenceMaps:
        """Evidence about the window's frames; raises as ``frames`` does."""
        return evidence_for_window(
            self.motion,
            self.frames(window.frame_indices.tolist()),
            config=self.config,
        )

    def reaches(self, frame: int, leap: int) -> bool:
        """Whether a frame is kept, or at most ``leap`` frames ahead of the newest one."""
        if not self._ready:
            return True
        return frame in self._ready or 0 < frame - next(reversed(self._ready)) <= leap

    def frames(self, wanted: Sequence[int]) -> list[FrameEvidence]:
        """Evidence about some frames, in their order.

        Raises:
            ValueError: a frame lies before those still kept, or after the end of the video.
        """
        while not self._ready or next(reversed(self._ready)) < max(wanted):
            maps = next(self._maps, None)
            if maps is None:
                break
            self._ready[maps.frame_index] = maps
            while len(self._ready) > max(self._keep, max(wanted) - min(wanted) + 1):
                self._ready.popitem(last=False)
        missing = [i for i in wanted if i not in self._ready]
        if missing:
            raise ValueError(
                f"expected windows in order within the video, got one with frames {missing} that are no longer "
                "(or not) there; raise keep, or feed the frames from first_frame_needed on"
            )
        return [self._ready[i] for i in wanted]
