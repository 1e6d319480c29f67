"""Small results that the export tests share."""

import dataclasses

import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.types import Reconstruction
from tests.support.poses import se3_exp

SIZE = (18, 25)


@pytest.fixture
def scene() -> Reconstruction:
    """A slanted wall seen by four slowly moving cameras, with sky and missing pixels."""
    generator = torch.Generator().manual_seed(1)
    rng = np.random.default_rng(1)
    depth = np.linspace(2, 3, SIZE[1], dtype=np.float32) * np.ones((4, *SIZE), np.float32)
    depth += 0.1 * rng.random(depth.shape).astype(np.float32)
    depth[:, 0, :5], depth[:, 0, 5:9] = np.nan, np.inf
    confidence = rng.random(depth.shape).astype(np.float32)
    c2w = se3_exp(0.02 * torch.randn(4, 6, generator=generator, dtype=torch.float64)).numpy()
    return Reconstruction(
        depth=depth,
        confidence=np.where(np.isfinite(depth), confidence, 0),
        intrinsics=centred_intrinsics(torch.full((4,), 30.0, dtype=torch.float64), SIZE).numpy(),
        times_s=np.array([0.0, 0.04, 0.09, 0.12]),
        source_frames=np.array([10, 11, 12, 13]),
        c2w=c2w,
        dynamic=np.zeros_like(depth),
        rgb=rng.random((*depth.shape, 3)).astype(np.float32),
        scene=np.zeros(4, int),
    )


@pytest.fixture
def filmed(scene) -> Reconstruction:
    """The wall without noise, with a moving patch, in the world of its first camera; confidences as a run has them."""
    c2w = np.linalg.inv(scene.c2w[0]) @ scene.c2w
    depth = np.empty_like(scene.depth)
    y, x = np.indices(SIZE) + 0.5
    for t in range(4):  # the wall 2.5 before the first camera, tilted: exact depth for every camera
        rays = np.stack([(x - 12.5) / 30, (y - 9) / 30, np.ones(SIZE)], axis=-1)
        normal, distance = np.array([-0.3, 0.1, 1.0]), 2.5
        world = rays @ c2w[t, :3, :3].T
        depth[t] = (distance - c2w[t, :3, 3] @ normal) / (world @ normal)
    dynamic = np.zeros_like(depth)
    dynamic[:, 6:10, 8:14] = 1.0
    depth[:, 6:10, 8:14] = 1.7
    depth[:, 0, :5], depth[:, 0, 5:9] = np.nan, np.inf
    confidence = np.where(np.isfinite(depth), 0.03 + 0.09 * scene.confidence, 0).astype(np.float32)
    return dataclasses.replace(scene, depth=depth, c2w=c2w, dynamic=dynamic, confidence=confidence)


@pytest.fixture
def shot():
    """A maker of shots of a tilted wall with a patch that moves: exact depth for any size, lens and time stamps."""

    def make(
        size: tuple[int, int] = (36, 64),
        *,
        focal: float = 60.0,
        centre: tuple[float, float] = (0.5, 0.5),
        pixel_aspect: float = 1.0,
        zoom: float = 1.0,
        fps: float = 16.0,
        count: int = 4,
    ) -> Reconstruction:
        height, width = size
        rng = np.random.default_rng(3)
        motion = np.float64([0.04, -0.03, 0.05, 0.02, -0.03, 0.025])
        c2w = se3_exp(torch.from_numpy(np.outer(np.arange(count), motion))).numpy()
        intrinsics = np.tile(np.eye(3), (count, 1, 1))
        intrinsics[:, 0, 0] = focal * zoom ** np.arange(count)
        intrinsics[:, 1, 1] = pixel_aspect * intrinsics[:, 0, 0]
        intrinsics[:, 0, 2], intrinsics[:, 1, 2] = centre[0] * width, centre[1] * height
        y, x = np.indices(size) + 0.5
        depth = np.empty((count, *size), np.float32)
        for t in range(count):
            rays = np.stack([x, y, np.ones(size)], axis=-1) @ np.linalg.inv(intrinsics[t]).T
            normal, distance = np.array([-0.3, 0.1, 1.0]), 2.5
            depth[t] = (distance - c2w[t, :3, 3] @ normal) / (rays @ c2w[t, :3, :3].T @ normal)
        dynamic = np.zeros_like(depth)
        dynamic[:, height // 3 : height // 2, width // 3 : width // 2] = 1
        depth[dynamic > 0] = 1.7
        depth[:, 0, :3], depth[:, 0, 3:6] = np.nan, np.inf
        return Reconstruction(
            depth=depth,
            confidence=np.where(np.isfinite(depth), 0.9, 0).astype(np.float32),
            intrinsics=intrinsics,
            times_s=3 + np.arange(count) / fps,
            source_frames=np.arange(count) * 2 + 7,
            c2w=c2w,
            dynamic=dynamic,
            rgb=(rng.integers(0, 256, (*depth.shape, 3)) / 255).astype(np.float32),
        )

    return make


def pixels_of(depth: np.ndarray) -> np.ndarray:
    """[N, 2] centres (x, y) of the pixels with finite depth, row by row: where the points of a frame belong."""
    rows, columns = np.nonzero(np.isfinite(depth))
    return np.stack([columns + 0.5, rows + 0.5], axis=1)


@pytest.fixture(name="pixels_of")
def _pixels_of():
    return pixels_of
