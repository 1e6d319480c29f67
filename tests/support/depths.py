"""A box world seen by a camera that moves, and a network that answers with its disparity, spoilt in known ways."""

import torch
import torch.nn.functional as F

from geo4d.geometry.cameras import unproject
from geo4d.models.monodepth.network import FrameDepths
from geo4d.types import EvidenceMaps, Window
from tests.support.truth import BoxWorld

SIZE = (72, 120)


class Spoilt:
    """True disparity times a drifting scale plus a drifting shift, bent by a smooth field."""

    def __init__(self, rgb, depth, scale_kind="affine", scale=None, shift=None, bend=None):
        self.scale_kind, self.asked = scale_kind, 0
        self.scale = torch.ones(len(rgb)) if scale is None else scale
        self.shift = torch.zeros(len(rgb)) if shift is None else shift
        bend = torch.zeros(len(rgb), *depth.shape[1:]) if bend is None else bend
        self.answers = self.scale[:, None, None] * (1 / depth) * bend.exp() + self.shift[:, None, None]
        self.pictures = rgb

    def __call__(self, rgb):
        self.asked += len(rgb)
        frames = [int((self.pictures - one).abs().mean((1, 2, 3)).argmin()) for one in rgb]
        return FrameDepths(self.answers[frames])


def smooth(num_frames: int, size, deviation: float, seed: int = 0):
    """A smooth random field, alike in all frames."""
    coarse = torch.randn(1, 1, 3, 5, generator=torch.Generator().manual_seed(seed)) * deviation
    return F.interpolate(coarse, size, mode="bicubic")[:, 0].expand(num_frames, -1, -1)


def box_clip(num_frames: int = 8, step: int = 4):
    """Pictures, depth, intrinsics and cameras of a box world."""
    world = BoxWorld(SIZE, fov_deg=60.0)
    times = range(0, num_frames * step, step)
    rgb = torch.stack([world.rgb(t) for t in times]).float()
    depth = torch.stack([world.depth(t) for t in times]).float()
    c2w = torch.stack([world.c2w(t) for t in times]).float()
    return rgb, depth, world.intrinsics().float().expand(num_frames, 3, 3).contiguous(), c2w


def as_window(rgb, frames=None, index: int = 0, intrinsics=None) -> Window:
    frames = torch.arange(len(rgb)) if frames is None else torch.as_tensor(frames)
    return Window(rgb, frames, frames.double() / 12, index, 12.0, intrinsics)


def true_evidence(
    depth, intrinsics, c2w, unit: float = 0.5, noise: float = 0.0, hole: bool = True
) -> EvidenceMaps:
    """Evidence in a unit of its own; a quarter of every frame has none and says nonsense there."""
    generator = torch.Generator().manual_seed(3)
    known = torch.ones_like(depth, dtype=torch.bool)
    swept = depth * unit * (noise * torch.randn(depth.shape, generator=generator)).exp()
    if hole:
        known[:, :, : depth.shape[2] // 4] = False
        swept = torch.where(known, swept, 0.3)
    moved = c2w.clone()
    moved[:, :3, 3] *= unit
    return EvidenceMaps(
        points=unproject(swept, intrinsics),
        mask=known,
        confidence=torch.where(known, 0.9, 0.0),
        intrinsics=intrinsics,
        c2w=moved,
        camera_confidence=torch.ones(len(depth)),
    )
