import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.models.tiny.anchor import log_correction
from geo4d.models.tiny.conditioning import encode_evidence, no_evidence
from geo4d.models.tiny.modalities import normalise, restore_disparity
from geo4d.models.tiny.model import anchored
from tests.support.poses import se3_exp

SIZE = (64, 96)


def slope(frames: int = 2) -> torch.Tensor:
    """Disparity that grows downwards."""
    rows = torch.linspace(0.2, 0.9, SIZE[0])[:, None].expand(*SIZE)
    return rows.expand(1, frames, *SIZE)


def evidence_of(disparity: torch.Tensor, confidence: torch.Tensor):
    return encode_evidence(disparity, confidence, SIZE)


def grey(frames: int) -> torch.Tensor:
    """A picture without edges, in [-1, 1]."""
    return torch.zeros(1, frames, 3, *SIZE)


def test_without_evidence_nothing_changes() -> None:
    predicted = slope()[:, :, None]
    assert log_correction(predicted, no_evidence(1, 2, SIZE, predicted), grey(2)).abs().max() == 0


def test_a_scale_of_the_evidence_is_not_an_error_of_the_prediction() -> None:
    predicted = slope()
    evidence = evidence_of(predicted * 7.0, torch.full_like(predicted, 0.9))
    change = log_correction(predicted[:, :, None], evidence, grey(2))
    # Near the upper end the evidence is cut off, and blocks of pixels are averages.
    assert change[..., 8:48, :].abs().max() < 0.05


def test_a_wrong_region_is_pulled_onto_the_evidence_and_takes_its_surroundings_along() -> None:
    truth = slope()
    predicted = truth.clone()
    predicted[..., 20:44, 20:50] *= 0.5
    confidence = torch.full_like(truth, 0.8)
    confidence[..., 30:40, 30:40] = 0.0  # a hole inside the wrong region
    change = log_correction(predicted[:, :, None], evidence_of(truth, confidence), grey(2))[:, :, 0]
    before = (predicted / truth).log().abs()
    after = ((predicted * change.exp()) / truth).log().abs()
    for rows, columns in ((slice(22, 42), slice(22, 28)), (slice(32, 38), slice(32, 38))):
        assert after[..., rows, columns].mean() < 0.35 * before[..., rows, columns].mean()
    assert after[..., 8:16, 60:].max() < 0.05


def test_one_sided_evidence_does_not_reach_far() -> None:
    predicted = slope()
    truth = predicted.clone()
    truth[..., :10] *= 3
    confidence = torch.zeros_like(truth)
    confidence[..., :20] = 0.9
    change = log_correction(predicted[:, :, None], evidence_of(truth, confidence), grey(2))
    assert change[..., 90:].abs().max() < 0.02


def test_disparity_spoiled_by_a_smooth_factor_is_pulled_back_onto_the_evidence() -> None:
    frames = 3
    depth = (1 / slope(frames))[0]
    K = centred_intrinsics(torch.full((frames,), 80.0), SIZE)
    c2w = se3_exp(torch.randn((frames, 6), generator=torch.Generator().manual_seed(0)) * 0.05)
    maps, _ = normalise(depth, K, c2w)
    spoiling = torch.linspace(0.8, 1.25, SIZE[1]).expand(frames, *SIZE)
    wrong, _ = normalise(depth * spoiling, K, c2w)
    evidence = evidence_of((1 / depth)[None], torch.full((1, frames, *SIZE), 0.9))
    fixed = anchored(wrong.disparity[None], evidence, grey(frames))[0]

    def error(candidate: torch.Tensor) -> float:
        ratio = (restore_disparity(candidate) / restore_disparity(maps.disparity)).log()
        return float(ratio[:, 0, 8:48, 8:88].std())

    assert error(fixed) < 0.3 * error(wrong.disparity)
    nothing = evidence_of((1 / depth)[None], torch.zeros(1, frames, *SIZE))
    assert torch.equal(anchored(wrong.disparity[None], nothing, grey(frames))[0], wrong.disparity)
