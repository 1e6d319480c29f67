"""A small exact sequence that every scoring test starts from."""

import numpy as np
import pytest
import torch

from geo4d.datasets.base import Sequence
from geo4d.datasets.pieces import constant_intrinsics
from geo4d.formats.cameras import save_tum
from geo4d.formats.images import save_image
from geo4d.geometry.cameras import camera_rays
from tests.support.poses import se3_exp


@pytest.fixture
def plane():
    """Twelve frames of a slanted plane, camera on a bent path, exact depth."""
    count, size = 12, (24, 32)
    time = torch.linspace(0, 1, count, dtype=torch.float64)
    twist = torch.stack([time, 0.3 * time**2, 0.2 * torch.sin(3 * time), 0 * time, 0.1 * time, 0 * time], -1)
    c2w = se3_exp(twist)
    intrinsics = torch.from_numpy(constant_intrinsics(count, 30, 30, 16, 12, integer_centres=False))
    rays = camera_rays(intrinsics, size) @ c2w[:, None, :3, :3].mT
    normal, offset = torch.tensor([0.3, 0.2, 1.0]).double(), 6.0
    depth = (offset - c2w[:, :3, 3] @ normal)[:, None, None] / (rays @ normal)
    rng = np.random.default_rng(0)
    return Sequence(
        name="plane",
        dataset="test",
        times_s=np.arange(count) / 10,
        size=size,
        rgb=rng.random((count, *size, 3), np.float32),
        depth=depth.float().numpy(),
        intrinsics=intrinsics.numpy(),
        c2w=c2w.numpy(),
    )


@pytest.fixture
def dataset(plane, tmp_path):
    """Two sequences in the simple layout, one of them with a still camera, and predictions for both."""
    root, predictions = tmp_path / "data", tmp_path / "predictions"
    for name in ("bent", "still"):
        clip, guess = root / name, predictions / name
        (clip / "depth").mkdir(parents=True)
        (guess / "depth").mkdir(parents=True)
        c2w = plane.c2w if name == "bent" else np.tile(np.eye(4), (12, 1, 1))
        for t in range(12):
            save_image(clip / "rgb" / f"{t:06d}.png", plane.rgb[t])
            np.savez(clip / "depth" / f"{t:06d}.npz", depth=plane.depth[t])
            np.savez(guess / "depth" / f"{t:06d}.npz", depth=plane.depth[t] * 0.5)
        (clip / "intrinsics.txt").write_text("30 30 16 12")
        (clip / "clip.json").write_text('{"fps": 10}')
        save_tum(clip / "poses.txt", plane.times_s, c2w)
        save_tum(guess / "poses.txt", plane.times_s, c2w)
    return root, predictions
