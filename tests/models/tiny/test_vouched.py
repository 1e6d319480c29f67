"""The network's share: high where evidence that it did not see agrees with it, low where it does not."""

from dataclasses import replace

import pytest
import torch

from geo4d.models.tiny.conditioning import encode_evidence, no_evidence
from geo4d.models.tiny.network import Evidence
from geo4d.models.tiny.vouched import ALONE, checkerboard, mixed_with_evidence, tempered, vouched_share

SIZE = (96, 160)
FRAMES = 4


def bumpy(seed: int) -> torch.Tensor:
    """[1, T, H, W]: disparity of boxes at several depths, larger than the blocks that are left out."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.full(SIZE, 0.4)
    for _ in range(14):
        top, left = (int(torch.randint(0, n - 40, (1,), generator=generator)) for n in SIZE)
        maps[top : top + 40, left : left + 40] = 0.2 + 0.6 * float(torch.rand(1, generator=generator))
    return maps.expand(1, FRAMES, *SIZE).clone()


def evidence_of(disparity: torch.Tensor, confidence: float = 0.6) -> Evidence:
    return encode_evidence(disparity, torch.full_like(disparity, confidence), SIZE)


def grey() -> torch.Tensor:
    return torch.zeros(1, FRAMES, 3, *SIZE)


def test_a_right_network_is_believed_and_a_wrong_one_is_not() -> None:
    truth = bumpy(1)
    evidence = evidence_of(truth)
    right = vouched_share(truth[:, :, None] * 3, evidence, grey())
    wrong = [float(vouched_share(bumpy(seed)[:, :, None], evidence, grey())) for seed in range(10, 16)]
    assert float(right) > 0.9
    assert sum(wrong) / len(wrong) < 0.35


def test_a_reversed_layout_and_a_flat_one_have_next_to_no_share() -> None:
    truth = bumpy(2)
    evidence = evidence_of(truth)
    for witness in (0.2 / truth, torch.ones_like(truth)):
        assert float(vouched_share(witness[:, :, None], evidence, grey())) < 0.05


def test_without_evidence_the_network_is_all_there_is() -> None:
    truth = bumpy(3)[:, :, None]
    nothing = no_evidence(1, FRAMES, SIZE, truth)
    assert float(vouched_share(truth, nothing, grey())) == 1
    assert torch.allclose(mixed_with_evidence(truth, torch.zeros(1), nothing, grey()), truth)


def test_evidence_whose_own_error_explains_all_that_is_left_judges_nothing() -> None:
    truth = bumpy(7)
    evidence = evidence_of(truth)
    wrong = bumpy(8)[:, :, None]
    shares = [
        float(vouched_share(wrong, replace(evidence, error=torch.full((1, FRAMES), error)), grey()))
        for error in (0.0, 0.3, 3.0)
    ]
    assert shares[0] < shares[1] < shares[2] == 1
    assert shares[0] == float(vouched_share(wrong, evidence, grey()))


def test_little_evidence_decides_little() -> None:
    truth = bumpy(4)
    confidence = torch.zeros_like(truth)
    confidence[..., 10:20, 10:20] = 0.6
    evidence = encode_evidence(truth, confidence, SIZE)
    assert float(vouched_share(0.2 / truth[:, :, None], evidence, grey())) > 0.7


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixing_keeps_the_unit_and_goes_from_evidence_to_the_network(share: float) -> None:
    truth, network = bumpy(5), 5 * bumpy(6)
    evidence = evidence_of(truth)
    mixed = mixed_with_evidence(network[:, :, None], torch.tensor([share]), evidence, grey())[:, :, 0]
    alone = mixed_with_evidence(network[:, :, None], torch.zeros(1), evidence, grey())[:, :, 0]
    assert torch.allclose(mixed.log(), (1 - share) * alone.log() + share * network.log(), atol=1e-5)
    # Evidence everywhere, spread: the truth, in the network's unit.
    log_ratio = (alone / truth).log()
    assert float(log_ratio.std()) < 0.12
    assert abs(float((mixed / network).log().mean())) < 0.05


def test_blocks_have_the_same_area_on_both_sides_and_fit_the_short_side() -> None:
    for size in ((48, 80), (80, 48), (20, 20)):
        board = checkerboard(size, torch.device("cpu"))
        assert board.shape == size
        assert 0.35 < float(board.float().mean()) < 0.65
        assert bool(board[0, 0]) != bool(board[0, min(size) // 3 + 1])


def test_evidence_counts_as_far_as_its_own_error_allows() -> None:
    """Sure evidence leaves the answer, hopeless evidence the witness; the unit of the answer is kept in between."""
    answer, witness = bumpy(3)[:, :, None], 5 * bumpy(4)[:, :, None]
    evidence = evidence_of(bumpy(3))

    def apart(error: float) -> tuple[float, float]:
        found = tempered(answer, witness, replace(evidence, error=torch.full((1, FRAMES), error)))
        return tuple(float((found.log() - other.log()).std()) for other in (answer, witness))

    assert apart(0.02)[0] < 1e-3
    assert apart(2.0)[1] < 1e-3
    half = apart(ALONE)
    assert half[0] == pytest.approx(half[1], rel=1e-3)
    found = tempered(answer, witness, replace(evidence, error=torch.full((1, FRAMES), ALONE)))
    assert float((found.log() - answer.log()).mean()) == pytest.approx(0, abs=0.02)
    assert torch.equal(tempered(answer, witness, evidence), answer)  # states no error
    nothing = replace(no_evidence(1, FRAMES, SIZE, grey()), error=torch.full((1, FRAMES), 2.0))
    torch.testing.assert_close(tempered(answer, witness, nothing), answer)
