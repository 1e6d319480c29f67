"""Where training clips come from: the seeded generator, or packed shards."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from geo4d.training.data import TrainingClip
from geo4d.training.evidence import EvidenceConfig, simulate_evidence

VALIDATION_OFFSET = 1_000_003
"""Added to a training seed for the clips that check a run while it trains."""


@dataclass(frozen=True)
class SyntheticSource:
    """Clips of the generator (textures of the training bank) with simulated evidence.

    Attributes:
        seed: of the stream of scenes.
        size: (height, width).
        num_frames: per clip.
        fps: frame rates to draw from, or None for the generator's own.
        supersample: rays per pixel and axis.
        still: factors on the weight of cameras without parallax; hidden evidence already looks like theirs.
        evidence: how evidence is simulated.
    """

    seed: int
    size: tuple[int, int]
    num_frames: int
    fps: tuple[float, ...] | None = None
    supersample: int = 1
    still: Mapping[str, float] = field(default_factory=lambda: {"static": 0.5, "pan": 0.65})
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)

    def __call__(self, index: int) -> TrainingClip:
        from geo4d.synthetic.render import iter_clips
        from geo4d.synthetic.scene import CAMERAS, SceneMix

        cameras = {
            kind: {name: weight * self.still.get(name, 1.0) for name, weight in weights.items()}
            for kind, weights in CAMERAS.items()
        }
        mix = SceneMix(cameras=cameras) if self.fps is None else SceneMix(cameras=cameras, fps=self.fps)
        clip = next(
            iter_clips(self.seed, self.size, self.num_frames, mix, start=index, supersample=self.supersample)
        )
        rng = np.random.default_rng((self.seed, 41, index))
        evidence = simulate_evidence(
            clip.rgb.float() / 255, clip.depth, clip.intrinsics, clip.c2w, self.evidence, rng
        )
        return TrainingClip(
            rgb=clip.rgb,
            depth=clip.depth.half(),
            intrinsics=clip.intrinsics,
            c2w=clip.c2w,
            prior_disparity=evidence.disparity.clamp(max=6e4).half(),
            prior_confidence=evidence.confidence.half(),
            prior_intrinsics=evidence.intrinsics,
            prior_c2w=evidence.c2w,
            prior_trust=evidence.trust,
        )


def as_float(clip: TrainingClip) -> TrainingClip:
    """The same clip with maps in single precision."""
    return TrainingClip(
        **{
            name: value.float() if value.dtype == torch.float16 else value
            for name, value in vars(clip).items()
        }
    )
