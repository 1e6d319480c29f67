import numpy as np
import pytest
import torch

from geo4d.fusion import align, fuse
from geo4d.fusion.fuse import dense_reconstruction
from geo4d.geometry.poses import inverse
from tests.support.poses import se3_exp


def test_everything_of_a_frame_is_there_and_agrees_with_the_alignment(make_wall) -> None:
    wall = make_wall(num_frames=12, size=(12, 16), noise=0.0)
    alignment = align(wall.predictions, num_frames=12)
    found = dense_reconstruction(alignment, wall.predictions, provenance={"a": 1})
    assert found.depth.shape == found.confidence.shape == found.dynamic.shape == (12, 12, 16)
    np.testing.assert_array_equal(found.intrinsics, alignment.intrinsics.numpy())
    np.testing.assert_array_equal(found.reliable, alignment.reliable.numpy())
    np.testing.assert_array_equal(found.source_frames, np.arange(12))
    assert found.provenance == {"a": 1}
    assert found.diagnostics == alignment.diagnostics
    ratio = found.depth / wall.depth.numpy()
    assert np.nanstd(ratio) / np.nanmean(ratio) < 0.02


def test_the_world_is_the_first_camera_unless_it_was_given(make_wall) -> None:
    wall = make_wall(num_frames=8, size=(12, 16), noise=0.0, windows=[list(range(8))])
    far = se3_exp(torch.tensor([3.0, -1, 2, 0.2, 0.4, -0.1]).double()) @ wall.c2w
    options = {"num_frames": 8, "known_intrinsics": wall.intrinsics, "with_moving": False}
    own, given = fuse(wall.predictions, **options), fuse(wall.predictions, known_c2w=far, **options)
    np.testing.assert_allclose(own.c2w[0], np.eye(4), atol=1e-6)
    np.testing.assert_allclose(given.c2w, far.numpy(), atol=1e-6)
    relative = (inverse(far[:1]) @ far).numpy()
    np.testing.assert_allclose(own.c2w[:, :3, :3], relative[:, :3, :3], atol=0.02)


def test_what_moves_is_left_out_when_nobody_asks(make_wall) -> None:
    wall = make_wall(num_frames=8, size=(12, 16), windows=[list(range(8))])
    told: list[tuple[str, float]] = []
    found = fuse(
        wall.predictions,
        num_frames=8,
        with_moving=False,
        times_s=np.arange(8) / 4 + 1,
        progress=lambda stage, share: told.append((stage, share)),
    )
    assert found.dynamic is None
    np.testing.assert_array_equal(found.times_s, np.arange(8) / 4 + 1)
    dense = [share for stage, share in told if stage == "dense depth"]
    assert dense == pytest.approx([(t + 1) / 8 for t in range(8)])
