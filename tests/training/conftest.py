from dataclasses import dataclass

import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.training.data import TrainingClip
from tests.support.poses import se3_exp


@dataclass(frozen=True)
class PlaneSource:
    """Clips of a wavy wall, without the renderer: quick, and a function of the number alone."""

    size: tuple[int, int] = (32, 48)
    num_frames: int = 4

    def __call__(self, index: int) -> TrainingClip:
        generator = torch.Generator().manual_seed(index)
        height, width = self.size
        y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
        a, b, c = torch.rand(3, generator=generator)
        depth = (2 + 3 * a * x + 2 * b * y + torch.sin(6 * c * x)).expand(self.num_frames, -1, -1).clone()
        depth[:, :3] = torch.inf
        rgb = torch.stack([x, y, (1 / depth[0]).clamp(0, 1)], -1).expand(self.num_frames, -1, -1, -1)
        c2w = se3_exp(0.05 * torch.randn((self.num_frames, 6), generator=generator))
        intrinsics = centred_intrinsics(torch.full((self.num_frames,), 40.0), self.size)
        small = (1 / depth)[:, ::2, ::2]
        return TrainingClip(
            rgb=(rgb * 255).byte(), depth=depth.half(), intrinsics=intrinsics, c2w=c2w,
            evidence_disparity=small.half(), evidence_confidence=(small > 0).half() * 0.8,
            evidence_intrinsics=intrinsics, evidence_c2w=c2w, evidence_trust=torch.full((self.num_frames,), 0.8),
        )  # fmt: skip


@pytest.fixture
def source() -> PlaneSource:
    return PlaneSource()
