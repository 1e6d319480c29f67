from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d.fusion import CameraEvidence, align, fuse
from geo4d.geometry.cameras import unproject
from geo4d.geometry.poses import inverse
from geo4d.types import Prediction


def camera_frame(wall, scales, *, metric=False, noise=0.0, with_intrinsics=False) -> list[Prediction]:
    """Camera-frame points of every window, each window times a factor of its own."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for p, scale in zip(wall.predictions, scales, strict=True):
        frames = p.frame_indices
        depth = wall.depth[frames] * (1 + noise * torch.randn(wall.depth[frames].shape, generator=generator))
        points = scale * unproject(depth, wall.intrinsics[frames].double())
        result.append(
            Prediction(
                frame_indices=frames,
                times_s=p.times_s,
                window_index=p.window_index,
                point_map=points.float(),
                point_frame="camera",
                point_z_offset=0.0,
                point_scale_kind="metric" if metric else "scale",
                intrinsics=wall.intrinsics[frames].float() if with_intrinsics else None,
                valid=p.valid,
            )
        )
    return result


def test_one_scale_for_the_video(make_wall):
    wall = make_wall(num_frames=20)
    result = fuse(camera_frame(wall, [1.0, 1.7, 0.6, 1.2], noise=0.02), num_frames=20)
    ratio = np.asarray(result.depth) / wall.depth.numpy()
    assert result.c2w is None
    assert result.dynamic is None
    assert np.std(ratio) / np.mean(ratio) < 0.03
    assert np.ptp(np.median(ratio, axis=(1, 2))) / np.mean(ratio) < 0.01
    assert abs(result.intrinsics[0, 0, 0] / float(wall.intrinsics[0, 0, 0]) - 1) < 0.02


def test_metric_points_keep_their_metres_and_stated_intrinsics(make_wall):
    wall = make_wall(num_frames=12)
    result = fuse(camera_frame(wall, [1.0, 1.0], metric=True, with_intrinsics=True), num_frames=12)
    assert result.scale_kind == "metric"
    assert np.allclose(np.asarray(result.depth), wall.depth.numpy(), rtol=1e-3)
    assert np.allclose(result.intrinsics, wall.intrinsics.numpy(), rtol=1e-5)


def test_evidence_puts_the_points_into_the_world(make_wall):
    wall = make_wall(num_frames=20)
    c2w = wall.c2w.clone()
    c2w[:, :3, 3] *= 3  # cameras in a unit of their own
    motion = CameraEvidence(c2w, wall.intrinsics.double(), torch.ones(20, dtype=torch.float64))
    result = fuse(camera_frame(wall, [1.0, 0.5, 2.0, 1.0], noise=0.01), num_frames=20, motion=motion)
    assert np.allclose(result.c2w, (inverse(c2w[:1]) @ c2w).numpy(), atol=1e-6)
    assert np.median(np.asarray(result.depth) / wall.depth.numpy()) == pytest.approx(3, rel=0.05)


def test_a_pure_turn_says_nothing_of_the_scale(make_wall, caplog):
    wall = make_wall(num_frames=12, motion="turn")
    motion = CameraEvidence(wall.c2w, wall.intrinsics.double(), torch.ones(12, dtype=torch.float64))
    alignment = align(camera_frame(wall, [1.0, 1.0]), num_frames=12, motion=motion)
    assert alignment.diagnostics["evidence_scale"] is None
    assert "no parallax" in caplog.text


def test_windows_without_overlap_are_named(make_wall):
    wall = make_wall(num_frames=16, windows=[list(range(8)), list(range(8, 16))])
    alignment = align(camera_frame(wall, [1.0, 1.0]), num_frames=16)
    assert alignment.diagnostics["windows_without_overlap"] == [0, 1]


def test_an_invalid_window_makes_its_frames_unreliable(make_wall):
    wall = make_wall(num_frames=12)
    predictions = camera_frame(wall, [1.0, 1.0])
    predictions[1] = replace(predictions[1], valid=torch.zeros_like(predictions[1].valid))
    result = fuse(predictions, num_frames=12)
    assert result.reliable.tolist() == [True] * 8 + [False] * 4
    assert np.isnan(np.asarray(result.depth)[8:]).all()


def test_mixed_kinds_are_refused(make_wall):
    wall = make_wall(num_frames=12)
    mixed = [camera_frame(wall, [1.0, 1.0])[0], wall.predictions[1]]
    with pytest.raises(ValueError, match="camera-frame points in all windows"):
        align(mixed, num_frames=12)
