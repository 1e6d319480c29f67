"""A wavy wall seen by a moving camera, and exact or disturbed window predictions of it."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import camera_rays, centred_intrinsics
from geo4d.geometry.poses import inverse, rigid, so3_exp, transform
from geo4d.types import Prediction


@dataclass
class Wall:
    """True depth, cameras and predictions of a static scene (and optionally a box that moves in front of it)."""

    size: tuple[int, int]
    intrinsics: torch.Tensor
    c2w: torch.Tensor
    depth: torch.Tensor
    dynamic: torch.Tensor
    predictions: list[Prediction] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return len(self.depth)


def path(num_frames: int, motion: str, generator: torch.Generator) -> torch.Tensor:
    """[T, 4, 4] cameras: ``walk``, ``turn`` (pure rotation) or ``still``."""
    time = torch.linspace(0, 1, num_frames, dtype=torch.float64)
    zero = torch.zeros_like(time)
    turn = torch.stack([0.1 * torch.sin(3 * time), 0.5 * time - 0.2, 0.05 * torch.sin(5 * time)], 1)
    centre = torch.stack([1.6 * time - 0.8, 0.3 * torch.sin(4 * time), 0.8 * time**2], 1)
    if motion == "still":
        turn, centre = torch.stack([zero] * 3, 1), torch.stack([zero] * 3, 1)
    if motion == "turn":
        centre = torch.stack([zero] * 3, 1)
    return rigid(so3_exp(turn), centre)


def wall_depth(c2w: torch.Tensor, rays: torch.Tensor, relief: float) -> torch.Tensor:
    """z-depth of z = 5 + relief * waves(x, y), by fixed-point steps along the rays (rays have z = 1)."""
    direction = rays @ c2w[:3, :3].T
    depth = torch.full(rays.shape[:-1], 5.0, dtype=torch.float64)
    for _ in range(60):
        point = c2w[:3, 3] + depth[..., None] * direction
        x, y = point[..., 0], point[..., 1]
        height = 5 + relief * (
            torch.sin(1.1 * x + 0.4) + torch.sin(1.4 * y) + 0.6 * torch.sin(0.7 * x - 1.2 * y)
        )
        depth = depth + 0.7 * (height - point[..., 2]) / direction[..., 2].clamp(min=0.3)
    return depth


def predict(
    wall: Wall, frames: list[int], index: int, *, noise: float, bad: bool, generator: torch.Generator
) -> Prediction:
    """What a network would say of these frames, normalised as the Geo4D family does."""
    height, width = wall.size
    first = inverse(wall.c2w[frames[0]])
    rays = camera_rays(wall.intrinsics[frames].double(), wall.size)
    points = transform(first @ wall.c2w[frames], wall.depth[frames][..., None] * rays)
    z = points[..., 2]
    low = float(z.quantile(0.02)) - 0.01
    unit = float(z.quantile(0.98)) + 0.01 - low
    if unit < 0.05:
        unit = 1.0
    normal = points / unit
    normal[..., 2] -= low / unit
    sigma = noise * (0.5 + torch.rand(z.shape, generator=generator, dtype=torch.float64)) + 1e-4
    draw = torch.randn(normal.shape, generator=generator, dtype=torch.float64)
    normal = normal + sigma[..., None] * draw
    inverse_depth = 1 / wall.depth[frames]
    q = float(inverse_depth.quantile(0.02)) - 0.01
    r = float(inverse_depth.quantile(0.98)) + 0.01 - q
    disparity = (inverse_depth - q) / r
    disparity = disparity + noise * torch.randn(disparity.shape, generator=generator, dtype=torch.float64)
    cameras = first @ wall.c2w[frames]
    turn = 0.2 * noise * torch.randn(len(frames), 3, generator=generator, dtype=torch.float64)
    turn[0] = 0
    cameras = rigid(so3_exp(turn) @ cameras[:, :3, :3], cameras[:, :3, 3] / (1.05 * unit))
    if bad:
        bump = torch.nn.functional.interpolate(
            torch.randn(1, 3, 4, 4, generator=generator), size=wall.size, mode="bilinear"
        )[0].permute(1, 2, 0)
        normal = normal + 0.5 * bump.double()
        disparity = torch.rand(disparity.shape, generator=generator, dtype=torch.float64)
        cameras = rigid(
            so3_exp(0.3 * torch.randn(len(frames), 3, generator=generator, dtype=torch.float64)),
            cameras[:, :3, 3],
        )
    return Prediction(
        frame_indices=torch.tensor(frames),
        times_s=torch.tensor(frames).double() / 10,
        window_index=index,
        point_map=normal.float(),
        point_uncertainty=sigma.float(),
        disparity=disparity.float(),
        ray_c2w=cameras.float(),
        valid=torch.ones(len(frames), height, width, dtype=torch.bool),
    )


@pytest.fixture
def make_wall():
    """A factory of walls with predictions."""

    def make(
        num_frames: int = 16,
        size: tuple[int, int] = (24, 36),
        windows: list[list[int]] | None = None,
        *,
        motion: str = "walk",
        relief: float = 0.5,
        noise: float = 0.005,
        bad: tuple[int, ...] = (),
        focal: float | np.ndarray = 1.0,
        moving_box: bool = False,
        seed: int = 0,
    ) -> Wall:
        generator = torch.Generator().manual_seed(seed)
        c2w = path(num_frames, motion, generator)
        focal_pixels = torch.as_tensor(focal, dtype=torch.float64).expand(num_frames) * size[1]
        intrinsics = centred_intrinsics(focal_pixels.clone(), size)
        rays = camera_rays(intrinsics, size)
        depth = torch.stack([wall_depth(c2w[t], rays[t], relief) for t in range(num_frames)])
        dynamic = torch.zeros(num_frames, *size, dtype=torch.bool)
        if moving_box:
            for t in range(num_frames):
                column = 2 + int(t * (size[1] - 12) / num_frames)
                dynamic[t, size[0] // 3 : 2 * size[0] // 3, column : column + 8] = True
            depth = torch.where(dynamic, 2.5, depth)
        wall = Wall(size, intrinsics, c2w, depth, dynamic)
        if windows is None:
            windows = [list(range(s, s + 8)) for s in range(0, num_frames - 7, 4)]
        wall.predictions = [
            predict(wall, frames, k, noise=noise, bad=k in bad, generator=generator)
            for k, frames in enumerate(windows)
        ]
        return wall

    return make


@pytest.fixture
def errors():
    """ATE (share of the path), largest rotation error in degrees, focal error in per cent, AbsRel after one scale."""

    def compute(wall: Wall, reconstruction, frames=None) -> dict[str, float]:
        from geo4d.geometry.fit import fit_similarity
        from geo4d.geometry.poses import rotation_angle, transform_cameras

        estimate = torch.from_numpy(np.asarray(reconstruction.c2w))
        sim = fit_similarity(estimate[:, :3, 3], wall.c2w[:, :3, 3])
        # Rotations tell more than a short path: turn by them.
        moved = transform_cameras(sim, estimate)
        relative_true = inverse(wall.c2w[:1]) @ wall.c2w
        relative = inverse(estimate[:1]) @ estimate
        angle = rotation_angle(relative[:, :3, :3].mT @ relative_true[:, :3, :3])
        extent = float((wall.c2w[:, :3, 3] - wall.c2w[0, :3, 3]).norm(dim=1).max())
        depth = np.asarray(reconstruction.depth[:], np.float64)
        rows = np.arange(wall.num_frames) if frames is None else np.asarray(frames)
        depth, truth = depth[rows], wall.depth.numpy()[rows]
        known = np.isfinite(depth)
        depth = depth * np.median(truth[known]) / np.median(depth[known])
        return {
            "ate": float((moved[:, :3, 3] - wall.c2w[:, :3, 3]).norm(dim=1).max()) / max(extent, 1e-9),
            "rotation_deg": float(torch.rad2deg(angle).max()),
            "focal_percent": float(
                100
                * (reconstruction.intrinsics[:, 0, 0] / wall.intrinsics[:, 0, 0].numpy() - 1).__abs__().max()
            ),
            "abs_rel": float((np.abs(depth - truth) / truth)[known].mean()),
            "known": float(known.mean()),
        }

    return compute
