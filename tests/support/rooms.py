"""Analytic scenes with exact cameras and depth: a textured room seen from inside, and balls that may move in it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """rgb [T,H,W,3], depth [T,H,W], dynamic [T,H,W], intrinsics [T,3,3], c2w [T,4,4]."""

    rgb: Tensor
    depth: Tensor
    dynamic: Tensor
    intrinsics: Tensor
    c2w: Tensor


def _texture(points: Tensor, seed: int) -> Tensor:
    """Bounded sum of plane waves of many lengths: rich at every scale, the same from every side."""
    generator = torch.Generator().manual_seed(seed)
    waves = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    waves *= torch.logspace(0.5, 1.55, 40, dtype=torch.float64)[:, None] / waves.norm(dim=1, keepdim=True)
    phase = torch.rand(40, 3, generator=generator, dtype=torch.float64) * 6.28
    value = torch.stack([torch.sin(points @ waves.T + phase[:, c]).sum(-1) for c in range(3)], -1)
    return 0.5 + 0.5 * torch.tanh(value / 5)


def render_room(
    c2w: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    *,
    half_extent: tuple[float, float, float] = (2.0, 1.4, 3.0),
    ball: Callable[[int], tuple[Tensor, float]] | None = None,
) -> Scene:
    """Ray-cast the inside of a box centred at the origin, with an optional ball: frame -> (centre, radius)."""
    height, width = size
    ys, xs = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) + 0.5,
        torch.arange(width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([xs, ys, torch.ones_like(xs)], -1)
    extent = torch.tensor(half_extent, dtype=torch.float64)
    colours, depths, movers = [], [], []
    for t in range(len(c2w)):
        rays = pixels @ torch.linalg.inv(intrinsics[t]).T @ c2w[t, :3, :3].T
        origin = c2w[t, :3, 3]
        # z of the ray in the camera is 1, so the ray parameter is the depth
        depth = ((extent * rays.sign() - origin) / rays).amin(-1)
        colour = _texture(origin + depth[..., None] * rays, 0)
        moving = torch.zeros_like(depth, dtype=torch.bool)
        if ball is not None:
            centre, radius = ball(t)
            to_centre = origin - centre
            a = (rays * rays).sum(-1)
            b = (rays * to_centre).sum(-1)
            root = b * b - a * ((to_centre * to_centre).sum() - radius**2)
            near = (-b - root.clamp_min(0).sqrt()) / a
            moving = (root > 0) & (near > 0) & (near < depth)
            depth = torch.where(moving, near, depth)
            surface = origin + depth[..., None] * rays - centre
            colour = torch.where(moving[..., None], _texture(surface, 7), colour)
        colours.append(colour)
        depths.append(depth)
        movers.append(moving)
    return Scene(
        torch.stack(colours).float(),
        torch.stack(depths).float(),
        torch.stack(movers),
        intrinsics.float(),
        c2w,
    )


def camera_path(rotation_vectors: np.ndarray, centres: np.ndarray) -> Tensor:
    from scipy.spatial.transform import Rotation

    c2w = torch.eye(4, dtype=torch.float64).repeat(len(centres), 1, 1)
    c2w[:, :3, :3] = torch.from_numpy(Rotation.from_rotvec(rotation_vectors).as_matrix())
    c2w[:, :3, 3] = torch.from_numpy(np.asarray(centres, dtype=np.float64))
    return c2w


def intrinsics_for(num_frames: int, focal: float, size: tuple[int, int]) -> Tensor:
    K = torch.tensor([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]], dtype=torch.float64)
    return K.repeat(num_frames, 1, 1)


@pytest.fixture(scope="session")
def make_room() -> Callable[..., Scene]:
    """``make_room(num_frames, size, focal, travel, turn, ball)``: a smooth path through the room.

    ``travel`` is the sideways path in metres, ``turn`` the pan in radians.
    """

    def make(
        num_frames: int = 8,
        size: tuple[int, int] = (72, 96),
        focal: float = 80.0,
        travel: float = 0.6,
        turn: float = 0.1,
        forward: float = 0.0,
        ball: Callable[[int], tuple[Tensor, float]] | None = None,
    ) -> Scene:
        s = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else np.zeros(1)
        centres = np.stack([travel * s, 0.15 * travel * np.sin(6 * s), forward * s], -1)
        angles = np.stack([0.15 * turn * np.sin(4 * s), turn * s, 0.1 * turn * s], -1)
        path = camera_path(angles, centres)
        return render_room(path, intrinsics_for(num_frames, focal, size), size, ball=ball)

    return make
