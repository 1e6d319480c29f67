"""Confidence against what is known: calibrated, overconfident and constant claims, ranks with ties, thresholds."""

import numpy as np
import pytest
import torch

from geo4d.evaluation.confidence import (
    WITHIN,
    calibration_deciles,
    calibration_tenths,
    confidence_scores,
    pooled_confidence,
    spearman,
)


def honest(count=40_000, seed=0):
    """Claims in [0, 1], and errors that are within the limit exactly as often as claimed."""
    generator = torch.Generator().manual_seed(seed)
    claim = torch.rand(count, generator=generator)
    right = torch.rand(count, generator=generator) < claim
    error = torch.where(right, 0.5 * WITHIN, 3 * WITHIN) * (
        0.9 + 0.2 * torch.rand(count, generator=generator)
    )
    return claim, error


def test_honest_claims_have_no_gap_and_shrunk_ones_do():
    claim, error = honest()
    deciles = calibration_deciles(claim, error)
    assert len(deciles) == 10
    assert sum(group.share for group in deciles) == pytest.approx(1)
    assert max(abs(group.claimed - group.true) for group in deciles) < 0.03
    assert confidence_scores(claim, error)["confidence_gap"] < 0.03
    # As the review found it: far too low everywhere. Ranks alone would not notice.
    low = confidence_scores(claim / 10, error)
    assert low["confidence_gap"] > 0.8
    assert low["confidence_spearman"] == pytest.approx(confidence_scores(claim, error)["confidence_spearman"])
    tenths = calibration_tenths(claim / 10, error)
    assert len(tenths) == 1
    assert tenths[0].true == pytest.approx(0.5, abs=0.02)


def test_equal_claims_are_not_sorted_by_chance():
    """Constant claims whose errors happen to be sorted: every group is the same."""
    error = torch.linspace(0, 2 * WITHIN, 1000)
    deciles = calibration_deciles(torch.full((1000,), 0.5), error)
    assert {round(group.true, 6) for group in deciles} == {0.5}
    assert len(calibration_deciles(torch.tensor([0.5]), torch.tensor([0.0]))) == 1
    assert calibration_deciles(torch.zeros(0), torch.zeros(0)) == ()


def test_spearman_follows_its_definition():
    """Against ranks counted pair by pair."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, 80).astype(float), rng.standard_normal(80)
    b = b + 0.4 * a

    def slow_ranks(values):
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    expected = np.corrcoef(slow_ranks(a), slow_ranks(b))[0, 1]
    assert spearman(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected)
    assert spearman(torch.tensor(b), torch.exp(torch.tensor(b))) == pytest.approx(1)
    assert spearman(torch.ones(5), torch.arange(5.0)) is None


def test_what_a_threshold_keeps():
    error = torch.tensor([0.1, 0.1, 0.3, 0.5])
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.1])
    scores = confidence_scores(
        confidence, error, confidence >= 0.75, torch.tensor([False, True, True, False])
    )
    assert scores["kept"] == 0.5
    assert scores["kept_moving"] == 0.5
    assert scores["kept_abs_rel"] == pytest.approx(0.1 / 0.25)
    assert scores["dropped_error"] == pytest.approx(3)  # torch's median is the lower of two
    nothing = confidence_scores(confidence, error, confidence > 1, torch.zeros(4, dtype=torch.bool))
    assert nothing["kept"] == 0
    assert nothing["kept_moving"] is None
    assert nothing["kept_abs_rel"] is None
    assert nothing["dropped_error"] is None
    assert set(confidence_scores(torch.zeros(0), torch.zeros(0)).values()) == {None}


def test_sequences_are_pooled():
    claim, error = honest(4000)
    half = len(claim) // 2
    parts = [
        {"confidence": claim[i : i + half].tolist(), "error": error[i : i + half].tolist()} for i in (0, half)
    ]
    pooled = pooled_confidence(parts)
    assert pooled["num_samples"] == 4000
    assert pooled["spearman"] == pytest.approx(spearman(claim, -error), abs=1e-6)
    assert pooled["gap"] < 0.08
    assert len(pooled["deciles"]) == 10
    assert pooled_confidence([]) is None
    assert pooled_confidence([{"confidence": [], "error": []}]) is None
