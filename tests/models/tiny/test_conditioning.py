import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.models.tiny.conditioning import encode_window
from geo4d.types import EvidenceMaps
from tests.support.poses import se3_exp

SIZE = (32, 48)


def maps(unit: float = 1.0, turn: bool = False) -> EvidenceMaps:
    generator = torch.Generator().manual_seed(0)
    depth = 1 + 4 * torch.rand((3, 36, 54), generator=generator)
    points = torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth * unit], -1)
    c2w = se3_exp(0.2 * torch.randn((3, 6), generator=generator))
    c2w[:, :3, 3] *= unit
    if turn:
        # The same cameras seen from another world: nothing that the network reads may change.
        motion = se3_exp(torch.tensor([0.3, -2.0, 1.0, 0.5, 1.0, -0.7]))
        motion[:3, 3] *= unit
        c2w = motion @ c2w
    mask = torch.rand((3, 36, 54), generator=generator) < 0.7
    return EvidenceMaps(
        points=points, mask=mask, confidence=torch.rand((3, 36, 54), generator=generator),
        intrinsics=centred_intrinsics(torch.full((3,), 50.0), (36, 54)), c2w=c2w,
        camera_confidence=torch.tensor([1.0, 0.5, 0.8]),
    )  # fmt: skip


def test_neither_the_unit_nor_the_world_of_the_evidence_matters() -> None:
    base = encode_window(maps(), SIZE)
    for other in (encode_window(maps(unit=13.0), SIZE), encode_window(maps(turn=True), SIZE)):
        torch.testing.assert_close(other.depth, base.depth, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.cameras, base.cameras, rtol=1e-3, atol=1e-3)


def test_shapes_and_ranges() -> None:
    encoded = encode_window(maps(), SIZE)
    assert encoded.depth.shape == (1, 3, 3, 16, 24)
    assert encoded.cameras.shape == (1, 3, 8, 4, 6)
    assert encoded.depth[:, :, 2].min() >= 0
    assert encoded.depth[:, :, 2].max() <= 1
    assert encoded.depth.isfinite().all()
    torch.testing.assert_close(encoded.cameras[0, :, 6, 0, 0], torch.tensor([1.0, 0.5, 0.8]))


def test_no_depth_leaves_the_rotation_and_takes_the_position_away() -> None:
    full = maps()
    bare = EvidenceMaps(
        points=full.points, mask=torch.zeros_like(full.mask), intrinsics=full.intrinsics, c2w=full.c2w,
        camera_confidence=full.camera_confidence,
    )  # fmt: skip
    encoded, complete = encode_window(bare, SIZE), encode_window(full, SIZE)
    assert encoded.depth.abs().max() == 0
    torch.testing.assert_close(encoded.cameras[:, :, :3], complete.cameras[:, :, :3])
    assert encoded.cameras[:, :, 3:6].abs().max() == 0
    assert encoded.cameras[:, :, 7].max() == 0


def test_no_cameras_leaves_the_depth() -> None:
    full = maps()
    encoded = encode_window(
        EvidenceMaps(points=full.points, mask=full.mask, confidence=full.confidence), SIZE
    )
    assert encoded.cameras.abs().max() == 0
    torch.testing.assert_close(encoded.depth, encode_window(full, SIZE).depth)


def test_pixels_outside_the_mask_do_not_leak() -> None:
    full = maps()
    spoiled = full.points.clone()
    spoiled[~full.mask] = -1e6
    other = EvidenceMaps(**{**vars(full), "points": spoiled})
    torch.testing.assert_close(encode_window(other, SIZE).depth, encode_window(full, SIZE).depth)
