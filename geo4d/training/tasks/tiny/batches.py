"""Batches of windows for the tiny model: sampled, mirrored, turned, with evidence that is dropped at times."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geo4d.datasets.sampling import choose_frames, mirror_cameras, turn_cameras, vary_colours
from geo4d.evidence.frames import usable_pixels
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.models.tiny.conditioning import encode_evidence
from geo4d.models.tiny.model import halved
from geo4d.models.tiny.network import Evidence
from geo4d.training.data import Batch, ClipSource, ClipStream, EveryNth, ReplayPlan, TrainingClip, stack_clips
from geo4d.training.sources import as_float


@dataclass(frozen=True)
class WindowSampling:
    """How training windows are cut from clips.

    Attributes:
        num_frames: per window.
        strides: frame distances to draw from.
        mirror: probability of a left-right flip.
        colours: vary the colours.
        zoom: most that a picture is enlarged about its middle; at 1 none. First and last frame of a window draw their own
            factor, evenly in its logarithm, and the frames between follow: a zoom lens.
        turned: probability that all windows of a step are seen by a camera lying on its side or upside down.
        seed: of all draws.
    """

    num_frames: int = 2
    strides: tuple[int, ...] = (1, 2, 3)
    mirror: float = 0.5
    colours: bool = True
    zoom: float = 1.0
    turned: float = 0.0
    seed: int = 0

    def quarter_turns(self, step: int) -> int:
        """Of the pictures of a step: both sides equally often, upside down half as often as either; mostly 0."""
        rng = np.random.default_rng((self.seed, 5, step))
        return int(rng.choice((1, 1, 2, 3, 3))) if rng.random() < self.turned else 0

    def window(self, clip: TrainingClip, sample: int) -> tuple[TrainingClip, Tensor]:
        """A varied copy of a clip, and its chosen frames."""
        rng = np.random.default_rng((self.seed, 3, sample))
        frames = choose_frames(clip.rgb.shape[0], self.num_frames, self.strides, rng)
        if rng.random() < self.mirror:
            clip = mirror_clip(clip)
        if self.colours:
            rgb = clip.rgb[frames].permute(0, 3, 1, 2).float() / 255
            varied = (vary_colours(rgb, rng) * 255).round().byte().permute(0, 2, 3, 1)
            whole = clip.rgb.clone()
            whole[frames] = varied
            clip = TrainingClip(**{**vars(clip), "rgb": whole})
        if self.zoom > 1:
            ends = np.random.default_rng((self.seed, 7, sample)).uniform(0, np.log(self.zoom), 2)
            factors = torch.ones(len(clip.rgb))
            factors[frames] = torch.linspace(float(ends[0]), float(ends[1]), len(frames)).exp()
            clip = zoom_clip(clip, factors)
        return clip, frames


def zoom_clip(clip: TrainingClip, factors: Float[Tensor, " T"]) -> TrainingClip:
    """Every frame enlarged about its middle, evidence included: a longer focal length, the same size.

    Colours are interpolated; depth, and what evidence says of it, come from the nearest pixel.

    Args:
        factors: of each frame, at least 1.
    """
    height, width = clip.rgb.shape[1:3]
    middle = torch.tensor([width / 2, height / 2])

    def lens(intrinsics: Tensor) -> Tensor:
        changed = intrinsics.clone()
        changed[:, :2, :2] *= factors[:, None, None].to(intrinsics)
        changed[:, :2, 2] = middle + (intrinsics[:, :2, 2] - middle) * factors[:, None]
        return changed

    def enlarged(maps: Tensor, mode: str) -> Tensor:
        grid = F.affine_grid(
            torch.eye(2, 3) / factors[:, None, None], [len(maps), 1, *maps.shape[-2:]], align_corners=False
        )
        return F.grid_sample(maps.float(), grid, mode=mode, padding_mode="border", align_corners=False)

    def nearest(maps: Tensor) -> Tensor:
        return enlarged(maps[:, None], "nearest")[:, 0].to(maps.dtype)

    rgb = enlarged(clip.rgb.permute(0, 3, 1, 2), "bilinear").round().clamp(0, 255).byte()
    return TrainingClip(
        rgb=rgb.permute(0, 2, 3, 1).contiguous(),
        depth=nearest(clip.depth),
        intrinsics=lens(clip.intrinsics),
        c2w=clip.c2w,
        evidence_disparity=nearest(clip.evidence_disparity),
        evidence_confidence=nearest(clip.evidence_confidence),
        evidence_intrinsics=lens(clip.evidence_intrinsics),
        evidence_c2w=clip.evidence_c2w,
        evidence_trust=clip.evidence_trust,
        times_s=clip.times_s,
    )


def mirror_clip(clip: TrainingClip) -> TrainingClip:
    """The clip seen in a mirror, evidence included."""
    width = clip.rgb.shape[2]
    intrinsics, c2w = mirror_cameras(clip.intrinsics, clip.c2w, width)
    evidence_intrinsics, evidence_c2w = mirror_cameras(clip.evidence_intrinsics, clip.evidence_c2w, width)
    return TrainingClip(
        rgb=clip.rgb.flip(2),
        depth=clip.depth.flip(2),
        intrinsics=intrinsics,
        c2w=c2w,
        evidence_disparity=clip.evidence_disparity.flip(2),
        evidence_confidence=clip.evidence_confidence.flip(2),
        evidence_intrinsics=evidence_intrinsics,
        evidence_c2w=evidence_c2w,
        evidence_trust=clip.evidence_trust,
        times_s=clip.times_s,
    )


def turn_batch(batch: Batch, turns: int) -> Batch:
    """The same windows seen by cameras that are rolled by quarter turns (see ``turn_cameras``)."""
    if turns % 4 == 0:
        return batch
    size = (batch.rgb.shape[-2], batch.rgb.shape[-1])
    intrinsics, c2w = turn_cameras(batch.intrinsics, batch.c2w, size, turns)
    evidence_intrinsics, evidence_c2w = turn_cameras(
        batch.evidence_intrinsics, batch.evidence_c2w, size, turns
    )
    return replace(
        batch,
        rgb=batch.rgb.rot90(turns, (-2, -1)),
        depth=batch.depth.rot90(turns, (-2, -1)),
        intrinsics=intrinsics,
        c2w=c2w,
        evidence_disparity=batch.evidence_disparity.rot90(turns, (-2, -1)),
        evidence_confidence=batch.evidence_confidence.rot90(turns, (-2, -1)),
        evidence_intrinsics=evidence_intrinsics,
        evidence_c2w=evidence_c2w,
    )


@dataclass(frozen=True)
class StreamedBatches:
    """Batches of a replayed clip stream; a ``BatchSource`` of the loop."""

    source: ClipSource
    plan: ReplayPlan
    sampling: WindowSampling
    batch: int
    num_workers: int = 0

    def __call__(self, first_step: int, rank: int, processes: int) -> Iterator[Batch]:
        share = self.batch // processes
        stream = ClipStream(
            self.source,
            self.plan,
            start=first_step * self.batch,
            part=EveryNth(self.batch, share, rank),
            num_workers=self.num_workers,
        )
        clips: list[TrainingClip] = []
        frames: list[Tensor] = []
        samples: list[int] = []
        for sample, clip in stream:
            varied, chosen = self.sampling.window(clip, sample)
            clips.append(varied)
            frames.append(chosen)
            samples.append(sample)
            if len(clips) == share:
                yield turn_batch(
                    stack_clips(clips, frames, samples), self.sampling.quarter_turns(sample // self.batch)
                )
                clips, frames, samples = [], [], []


@dataclass(frozen=True)
class EvidenceDropout:
    """How often training hides evidence, so that the network can do without.

    Attributes:
        everything: no evidence at all.
        rotation_only: rotation of the cameras, nothing else: what a pure pan gives.
        cameras_only: cameras, no depth.
        depth_only: depth, no cameras.
        thinning: evidence below a confidence drawn from this range is taken away, as the mask does at inference.
    """

    everything: float = 0.25
    rotation_only: float = 0.12
    cameras_only: float = 0.06
    depth_only: float = 0.04
    thinning: tuple[float, float] = (0.05, 0.25)

    def thin(self, confidence: Float[Tensor, "B T h w"], samples: Tensor, seed: int) -> Tensor:
        """Confidence with the lowest values taken away."""
        bounds = [
            np.random.default_rng((seed, 19, sample)).uniform(*self.thinning) for sample in samples.tolist()
        ]
        bound = torch.tensor(bounds, dtype=confidence.dtype, device=confidence.device)
        return torch.where(confidence >= bound[:, None, None, None], confidence, 0.0)

    def keep(self, samples: Tensor, seed: int) -> Float[Tensor, "3 B"]:
        """1 or 0 for depth, rotation and position of each sample."""
        rows = []
        for sample in samples.tolist():
            draw = np.random.default_rng((seed, 7, sample)).random()
            kept = (1.0, 1.0, 1.0)
            for share, what in (
                (self.everything, (0.0, 0.0, 0.0)),
                (self.rotation_only, (0.0, 1.0, 0.0)),
                (self.cameras_only, (0.0, 1.0, 1.0)),
                (self.depth_only, (1.0, 0.0, 0.0)),
            ):
                if 0 <= draw < share:
                    kept = what
                draw -= share
            rows.append(kept)
        return torch.tensor(rows).T


def batch_evidence(batch: Batch, dropout: EvidenceDropout | None = None, seed: int = 0) -> Evidence:
    """Evidence channels of a training batch; without ``dropout`` as it is at inference."""
    size = batch.rgb.shape[-2:]
    confidence = batch.evidence_confidence
    if dropout is None:
        confidence = torch.where(usable_pixels(confidence), confidence, 0.0)
    else:
        confidence = dropout.thin(confidence, batch.samples, seed)
    evidence = encode_evidence(
        batch.evidence_disparity,
        confidence,
        (size[0], size[1]),
        batch.evidence_intrinsics,
        batch.evidence_c2w,
        batch.evidence_trust,
    )
    if dropout is None:
        return evidence
    depth, rotation, position = dropout.keep(batch.samples, seed).to(batch.rgb)[:, :, None, None, None, None]
    parts = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1], device=batch.rgb.device)[:, None, None]
    return Evidence(evidence.depth * depth, evidence.cameras * torch.where(parts == 0, rotation, position))


def halved_batch(batch: Batch) -> Batch:
    """The windows as the diffusion network sees them: half the size, the truth by its odd pixels."""
    size = (batch.rgb.shape[-2], batch.rgb.shape[-1])
    half = (size[0] // 2, size[1] // 2)
    return replace(
        batch,
        rgb=halved(batch.rgb),
        depth=batch.depth[..., 1::2, 1::2],
        intrinsics=resize_intrinsics(batch.intrinsics, size, half),
        evidence_intrinsics=resize_intrinsics(batch.evidence_intrinsics, size, half),
    )


def mirror_batch(batch: Batch) -> Batch:
    """The same windows seen in a mirror, evidence included."""
    width = batch.rgb.shape[-1]
    intrinsics, c2w = mirror_cameras(batch.intrinsics, batch.c2w, width)
    evidence_intrinsics, evidence_c2w = mirror_cameras(batch.evidence_intrinsics, batch.evidence_c2w, width)
    return replace(
        batch,
        rgb=batch.rgb.flip(-1),
        depth=batch.depth.flip(-1),
        intrinsics=intrinsics,
        c2w=c2w,
        evidence_disparity=batch.evidence_disparity.flip(-1),
        evidence_confidence=batch.evidence_confidence.flip(-1),
        evidence_intrinsics=evidence_intrinsics,
        evidence_c2w=evidence_c2w,
    )


def grey(maps: Float[Tensor, "1 H W"]) -> Float[Tensor, "3 H W"]:
    """Maps in [-1, 1] as grey pictures in [0, 1]."""
    return ((maps.float() + 1) / 2).clamp(0, 1).expand(3, -1, -1)


def validation_batches(source: ClipSource, count: int, num_frames: int, batch: int = 8) -> list[Batch]:
    """Fixed windows (the first frames of each clip), as they are."""
    result = []
    for start in range(0, count, batch):
        numbers = list(range(start, min(start + batch, count)))
        clips = [as_float(source(number)) for number in numbers]
        result.append(stack_clips(clips, [torch.arange(num_frames)] * len(clips), numbers))
    return result
