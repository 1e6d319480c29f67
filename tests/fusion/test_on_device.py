"""The fusion on a device that is not there gives what the CPU gives, and its maps wait there for the host."""

from dataclasses import replace

import pytest
import torch

from geo4d.fusion import CameraEvidence, align, iter_dense
from geo4d.fusion.steady import iter_steady
from tests.support.fake_device import DEVICE, FakeDevice, FakeTensor


def tracks_of(wall, windows: tuple[int, ...]) -> CameraEvidence:
    """True cameras in another unit, and windows whose points are in it."""
    c2w = wall.c2w.clone()
    c2w[:, :3, 3] *= 2.0
    return CameraEvidence(c2w, wall.intrinsics, torch.ones(len(c2w), dtype=c2w.dtype), windows)


@pytest.mark.parametrize(
    "case", ["windows alone", "with tracks", "tracks in the unit of windows", "camera frame"]
)
def test_alignment_and_maps_agree_with_the_cpu(make_wall, case) -> None:
    wall = make_wall(12, moving_box=case == "windows alone")
    predictions = wall.predictions
    motion = None
    if case.startswith(("with tracks", "tracks")):
        motion = tracks_of(wall, () if case == "with tracks" else tuple(range(len(predictions))))
    if case == "camera frame":
        predictions = [
            replace(one, point_frame="camera", point_z_offset=0.0, ray_map=None, ray_c2w=None, disparity=None)
            for one in predictions
        ]
    here = align(predictions, num_frames=12, motion=motion)
    plain = list(iter_steady(here, iter_dense(here, predictions)))
    with FakeDevice():
        there = align(predictions, num_frames=12, motion=motion, device=DEVICE)
        assert (there.c2w is None) == (here.c2w is None)
        if here.c2w is not None and there.c2w is not None:
            assert torch.allclose(there.c2w.cpu(), here.c2w, atol=1e-3)
        maps = list(iter_steady(there, iter_dense(there, predictions, device=DEVICE)))
        assert all(isinstance(one.depth, FakeTensor) for one in maps)
        found = [one.to("cpu") for one in maps]
    for one, other in zip(found, plain, strict=True):
        assert ((one.depth / other.depth - 1).abs() < 1e-3).float().mean() > 0.99
        assert (one.confidence - other.confidence).abs().mean() < 1e-2


def test_a_frame_is_solved_in_one_piece_on_a_device(make_wall) -> None:
    wall = make_wall(8, size=(96, 160), windows=[list(range(8))])
    alignment = align(wall.predictions, num_frames=8)
    with FakeDevice() as device:
        next(iter_dense(alignment, wall.predictions, device=DEVICE, with_moving=False))
        waits = sum(count for place, count in device.waits.items() if "fusion/dense" in place)
    assert waits == 1  # whether any window has a disparity here
