"""Small results that the export tests share."""

import dataclasses

import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.poses import se3_exp
from geo4d.types import Reconstruction

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
