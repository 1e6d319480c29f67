import torch

from geo4d.evidence.agreement import SURE, agreeing


def wall(depth: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Disparity and confidence of a wall that is surely there."""
    return torch.full((60, 80), 1 / depth), torch.full((60, 80), 0.7)


def test_unsure_evidence_that_is_nearer_than_all_around_it_is_left_out() -> None:
    disparity, confidence = wall()
    disparity[20:30, 30:40], confidence[20:30, 30:40] = 1 / 1.0, 0.1
    kept = agreeing(disparity, confidence)
    assert not kept[20:30, 30:40].any()
    assert kept[:20].all()
    moving = torch.zeros(60, 80)
    moving[18:32, 28:42] = 0.4
    assert agreeing(disparity, confidence, moving).all()  # somebody walks before the wall
    confidence[20:30, 30:40] = SURE  # a box that is surely there
    assert agreeing(disparity, confidence).all()


def test_a_doorway_stays_and_a_walker_who_looks_far_does_not() -> None:
    disparity, confidence = wall()
    disparity[20:30, 30:40], confidence[20:30, 30:40] = 1 / 6.0, 0.1
    moving = torch.zeros(60, 80)
    assert agreeing(disparity, confidence).all()
    assert agreeing(disparity, confidence, moving).all()
    moving[18:32, 28:42] = 0.4
    assert not agreeing(disparity, confidence, moving)[20:30, 30:40].any()


def test_small_differences_and_places_without_any_sure_evidence_stay() -> None:
    disparity, confidence = wall()
    disparity[20:30, 30:40], confidence[20:30, 30:40] = 1.2 / 2.0, 0.1
    assert agreeing(disparity, confidence, torch.ones(60, 80)).all()
    assert agreeing(disparity, confidence).all()
    noise = torch.rand((60, 80), generator=torch.Generator().manual_seed(0)) + 0.1
    assert agreeing(noise, torch.full((60, 80), 0.2), torch.ones(60, 80)).all()


def test_a_slope_is_no_contradiction() -> None:
    """A floor that runs away: half of it unsure, in stripes."""
    depth = torch.linspace(8, 1, 60)[:, None].expand(60, 80).clone()
    confidence = torch.full((60, 80), 0.7)
    confidence[:, ::2] = 0.1
    assert agreeing(1 / depth, confidence).float().mean() > 0.97
