"""Where training clips come from: the seeded generator, or packed shards."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from geo4d.training.data import TrainingClip
from geo4d.training.evidence import EvidenceConfig, simulate_evidence

if TYPE_CHECKING:
    from geo4d.synthetic.render import SyntheticClip
    from geo4d.synthetic.scene import Scene

PITCHES = (12.0, 60.0)
"""Degrees."""

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
        indoor: factor on the weight of rooms.
        open_rooms: share kept of the rooms that show the sky where a wall is missing.
        blank: share of clips whose walls are mostly without texture (``synthetic.blank``).
        pitched: share of clips whose camera looks down on its scene by 12 to 60 degrees more, as one does at a desk.
        evidence: how evidence is simulated; None for networks that look at none.
    """

    seed: int
    size: tuple[int, int]
    num_frames: int
    fps: tuple[float, ...] | None = None
    supersample: int = 1
    still: Mapping[str, float] = field(default_factory=lambda: {"static": 0.5, "pan": 0.65})
    indoor: float = 1.0
    open_rooms: float = 1.0
    blank: float = 0.0
    pitched: float = 0.0
    evidence: EvidenceConfig | None = field(default_factory=EvidenceConfig)

    def __call__(self, index: int) -> TrainingClip:
        clip = self.clip(index)
        rng = np.random.default_rng((self.seed, 41, index))
        return TrainingClip(
            rgb=clip.rgb,
            depth=clip.depth.half(),
            intrinsics=clip.intrinsics,
            c2w=clip.c2w,
            times_s=torch.as_tensor(clip.times_s, dtype=torch.float32),
            **evidence_fields(clip.rgb, clip.depth, clip.intrinsics, clip.c2w, self.evidence, rng),
        )

    def clip(self, index: int) -> "SyntheticClip":
        """The rendered clip itself, with its truth and without evidence."""
        from geo4d.synthetic.blank import blank_surfaces
        from geo4d.synthetic.render import clip_seed, make_scene, render_clip
        from geo4d.synthetic.scene import CAMERAS, SceneMix, sample_config

        cameras = {
            kind: {name: weight * self.still.get(name, 1.0) for name, weight in weights.items()}
            for kind, weights in CAMERAS.items()
        }
        mix = SceneMix(cameras=cameras) if self.fps is None else SceneMix(cameras=cameras, fps=self.fps)
        mix = replace(mix, kinds={**mix.kinds, "room": mix.kinds["room"] * self.indoor})
        config = sample_config(clip_seed(self.seed, index), self.num_frames, self.size[0] / self.size[1], mix)
        scene = make_scene(config)
        rng = np.random.default_rng((self.seed, 43, index))
        blank = rng.random() < self.blank
        if config.kind == "room" and rng.random() >= self.open_rooms:
            while _shows_sky(scene):
                config = replace(config, seed=int(rng.integers(1 << 62)))
                scene = make_scene(config)
        if blank:
            scene = blank_surfaces(scene)
        if rng.random() < self.pitched:
            scene = _looking_down(scene, float(rng.uniform(*PITCHES)))
        return render_clip(scene, self.size, self.supersample)


def evidence_fields(
    rgb: UInt8[Tensor, "T H W 3"],
    depth: Float[Tensor, "T H W"],
    intrinsics: Float[Tensor, "T 3 3"],
    c2w: Float[Tensor, "T 4 4"],
    config: EvidenceConfig | None,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """The fields ``evidence_*`` of a ``TrainingClip``, simulated; without a ``config`` they are empty of evidence."""
    if config is None:
        nothing = torch.zeros(rgb.shape[0], 1, 1).half()
        return {
            "evidence_disparity": nothing,
            "evidence_confidence": nothing,
            "evidence_intrinsics": intrinsics,
            "evidence_c2w": c2w,
            "evidence_trust": torch.zeros(rgb.shape[0]),
        }
    found = simulate_evidence(rgb.float() / 255, depth, intrinsics, c2w, config, rng)
    return {
        "evidence_disparity": found.disparity.clamp(max=6e4).half(),
        "evidence_confidence": found.confidence.half(),
        "evidence_intrinsics": found.intrinsics,
        "evidence_c2w": found.c2w,
        "evidence_trust": found.trust,
    }


def _looking_down(scene: "Scene", degrees: float) -> "Scene":
    """The scene with all its cameras tilted, by half as often as it takes until they show enough; at worst as it was."""
    from geo4d.synthetic.render import is_acceptable

    while degrees > PITCHES[0] / 2:
        angle = np.deg2rad(degrees)
        tilt = np.eye(4)
        tilt[1:3, 1:3] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        tilted = replace(scene, c2w=scene.c2w @ tilt)
        if is_acceptable(tilted):
            return tilted
        degrees /= 2
    return scene


def _shows_sky(scene: "Scene") -> bool:
    from geo4d.synthetic.render import cast_depth

    frames = (0, scene.num_frames // 2, scene.num_frames - 1)
    return any(bool((~cast_depth(scene, (15, 25), frame)[0].isfinite()).any()) for frame in frames)


def as_float(clip: TrainingClip) -> TrainingClip:
    """The same clip with maps in single precision."""
    return TrainingClip(
        **{
            name: value.float() if value.dtype == torch.float16 else value
            for name, value in vars(clip).items()
        }
    )
