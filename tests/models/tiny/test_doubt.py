from dataclasses import replace

import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.models.tiny.conditioning import encode_evidence, encode_window
from geo4d.models.tiny.doubt import believed, doubted_frames
from geo4d.types import EvidenceMaps
from tests.support.poses import se3_exp

SIZE, FRAMES = (64, 96), 4


def witness() -> torch.Tensor:
    rows = torch.linspace(0.15, 0.9, SIZE[0])[:, None].expand(*SIZE)
    return rows.expand(1, FRAMES, 1, *SIZE)


def evidence(disparity: torch.Tensor, confidence: float = 0.7):
    c2w = se3_exp(torch.randn((1, FRAMES, 6), generator=torch.Generator().manual_seed(0)) * 0.1)
    K = centred_intrinsics(torch.full((1, FRAMES), 90.0), SIZE)
    sure = torch.full_like(disparity, confidence)
    return encode_evidence(disparity, sure, SIZE, K, c2w, torch.full((1, FRAMES), 0.9))


def test_evidence_that_agrees_is_kept_whatever_its_unit() -> None:
    given = evidence(witness()[:, :, 0] * 20)
    kept = believed(witness(), given)
    assert torch.equal(kept.depth, given.depth)
    assert torch.equal(kept.cameras, given.cameras)


def test_flat_and_upside_down_evidence_goes_and_takes_the_positions_but_not_the_rotations() -> None:
    upside_down = witness()[:, :, 0].flip(-2)
    for wrong in (torch.full((1, FRAMES, *SIZE), 0.5), upside_down):
        given = evidence(wrong)
        kept = believed(witness(), given)
        assert kept.depth.abs().max() == 0
        assert kept.cameras[:, :, 3:6].abs().max() == 0
        assert kept.cameras[:, :, 7].max() == 0
        assert torch.equal(kept.cameras[:, :, [0, 1, 2, 6]], given.cameras[:, :, [0, 1, 2, 6]])


def test_one_bad_frame_loses_its_depth_alone() -> None:
    mixed = witness()[:, :, 0].clone()
    mixed[:, 2] = mixed[:, 2].mean()
    given = evidence(mixed)
    doubted, _ = doubted_frames(witness(), given)
    assert doubted.tolist() == [[False, False, True, False]]
    kept = believed(witness(), given)
    assert kept.depth[:, 2].abs().max() == 0
    assert torch.equal(kept.depth[:, 0], given.depth[:, 0])
    assert torch.equal(kept.cameras, given.cameras)


def test_a_flat_scene_may_have_flat_evidence_and_little_evidence_is_not_judged() -> None:
    flat = torch.full((1, FRAMES, *SIZE), 0.5)
    assert not doubted_frames(flat[:, :, None], evidence(flat))[0].any()
    assert not doubted_frames(witness(), evidence(flat, confidence=0.02))[0].any()


def test_evidence_is_believed_by_its_own_error_and_not_by_that_of_the_witness() -> None:
    upside_down = witness()[:, :, 0].flip(-2)
    for wrong in (upside_down, torch.full((1, FRAMES, *SIZE), 0.5)):
        given = evidence(wrong)
        sure = replace(given, error=torch.full((1, FRAMES), 0.03))
        unsure = replace(given, error=torch.full((1, FRAMES), 0.4))
        assert torch.equal(believed(witness(), sure).depth, given.depth)
        assert doubted_frames(witness(), unsure)[0].all()
    # much deeper than what the witness sees is no proof: what only turns looks deep, too
    shallow = 0.3 + 0.5 * witness()
    assert doubted_frames(shallow, replace(evidence(upside_down), error=torch.full((1, FRAMES), 0.4)))[
        0
    ].all()


def test_the_error_of_the_evidence_reaches_the_judgement_through_the_prior() -> None:
    disparity = witness()[0, :, 0]
    points = torch.stack([torch.zeros_like(disparity), torch.zeros_like(disparity), 1 / disparity], -1)
    maps = EvidenceMaps(
        points=points,
        mask=torch.ones(FRAMES, *SIZE, dtype=torch.bool),
        confidence=torch.full((FRAMES, *SIZE), 0.5),
        log_depth_spread=torch.full((FRAMES, *SIZE), 0.07),
    )
    encoded = encode_window(maps, SIZE)
    assert encoded.error is not None
    torch.testing.assert_close(encoded.error, torch.full((1, FRAMES), 0.07))
    assert encode_window(replace(maps, log_depth_spread=None), SIZE).error is None
