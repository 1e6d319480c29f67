import pytest
import torch

from geo4d.models.monodepth.over_time import Known, enough_evidence, solve_over_time
from tests.support.depths import box_clip, smooth

FRAMES = 6


@pytest.fixture(scope="module")
def truth():
    return 1 / box_clip(FRAMES)[1]


def drifting(truth):
    generator = torch.Generator().manual_seed(1)
    scale = (0.2 * torch.randn(FRAMES, generator=generator)).exp()
    shift = 0.3 * torch.randn(FRAMES, generator=generator)
    return scale, shift, (truth - shift[:, None, None]) / scale[:, None, None]


def test_the_scale_and_shift_of_every_frame_come_out(truth):
    scale, _, network = drifting(truth)
    for unit in (1.0, 250.0):  # whatever the network's unit
        found = solve_over_time(network * unit, truth, torch.ones_like(truth), affine=True)
        torch.testing.assert_close(found.scale * unit, scale, rtol=0.02, atol=0)
        torch.testing.assert_close(found(network * unit), truth, rtol=0.02, atol=0)
    assert found.error < 0.02


def test_what_moves_and_what_is_wrong_does_not_pull(truth):
    _, _, network = drifting(truth)
    weight, evidence = torch.ones_like(truth), truth.clone()
    evidence[:, :44] = 9.0  # most of the picture moves: no weight
    weight[:, :44] = 0.0
    evidence[:, 60:, 80:] *= 4.0  # a wrong match that nobody noticed: one pixel in seven of the rest
    found = solve_over_time(network, evidence, weight, affine=True)
    assert ((found(network) / truth).log().abs()).median() < 0.02
    spoilt = solve_over_time(network, evidence, torch.ones_like(truth), affine=True)
    assert ((spoilt(network) / truth).log().abs()).median() > 0.05


def test_a_network_without_a_shift_gets_none(truth):
    found = solve_over_time(3 * truth, truth * 1.0, torch.ones_like(truth), affine=False)
    torch.testing.assert_close(found.scale, torch.full((FRAMES,), 1 / 3), rtol=1e-3, atol=0)
    assert found.shift.abs().max() < 1e-5


def test_frames_without_evidence_are_held_by_their_neighbours(truth):
    weight = torch.ones_like(truth)
    weight[2:4] = 0
    weight[:, 40:] = 0
    found = solve_over_time(2 * truth - 0.1, truth, weight, affine=True)
    torch.testing.assert_close(found.scale, torch.full((FRAMES,), 0.5), rtol=0.05, atol=0)
    alone = solve_over_time(2 * truth - 0.1, truth, weight, affine=True, steady=False)
    torch.testing.assert_close(alone.scale[:2], torch.full((2,), 0.5), rtol=0.05, atol=0)


def test_noisy_frames_are_steadier_than_each_by_itself(truth):
    bend = torch.cat([smooth(1, truth.shape[1:], 0.15, seed) for seed in range(FRAMES)])
    weight = (smooth(1, truth.shape[1:], 1.0, 77).expand(FRAMES, -1, -1) > 0.3).float()
    jump = {}
    for steady in (True, False):
        found = solve_over_time(truth * bend.exp(), truth, weight, affine=True, steady=steady)
        jump[steady] = (found.scale.log().diff().abs().mean(), found.shift.diff().abs().mean())
    assert jump[True][0] < 0.9 * jump[False][0]
    assert jump[True][1] < 0.9 * jump[False][1]


def test_what_the_window_before_found_holds_its_frames(truth):
    weight = torch.zeros_like(truth)
    weight[-1] = 1.0  # only the last frame knows anything
    known = Known(torch.tensor([0.4, 0.4] + [torch.nan] * 4), torch.tensor([0.05, 0.05] + [torch.nan] * 4))
    found = solve_over_time(truth, truth, weight, affine=True, known=known)
    assert abs(float(found.scale[0]) - 0.4) < 0.05
    assert abs(float(found.scale[-1]) - 1.0) < 0.05


def test_a_flat_scene_does_not_turn_over():
    """At one depth scale and shift cannot be told apart; the scale stays positive and the depth right."""
    truth = torch.full((3, 40, 60), 0.5)
    network = truth + 0.01 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    found = solve_over_time(network, truth, torch.ones_like(truth), affine=True)
    assert found.scale.min() > 0
    torch.testing.assert_close(found(network).median(), truth.median(), rtol=0.02, atol=0)


def test_too_little_evidence_is_an_error(truth):
    weight = torch.zeros_like(truth)
    weight[0, 30:34, 30:34] = 1
    assert not enough_evidence(weight)
    assert enough_evidence(torch.ones_like(truth))
    with pytest.raises(ValueError, match="at least 40 sampled pixels with evidence, got"):
        solve_over_time(truth, truth, weight, affine=True)
