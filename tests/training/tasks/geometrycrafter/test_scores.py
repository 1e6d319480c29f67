import itertools
import math

import pytest
import torch

from geo4d.training.tasks.geometrycrafter.scores import window_scores


def test_scores_against_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 1 + torch.rand(3, 4, 5, generator=generator)
    predicted = 2 * truth * (1 + 0.1 * torch.rand(3, 4, 5, generator=generator))
    truth[0, 0, 0], predicted[1, 1, 1] = torch.inf, torch.nan
    known = [
        index for index in itertools.product(range(3), range(4), range(5))
        if math.isfinite(truth[index]) and math.isfinite(predicted[index])
    ]  # fmt: skip
    ratios = sorted(float(predicted[index] / truth[index]) for index in known)
    middle = ratios[(len(ratios) - 1) // 2]
    errors = [abs(ratio / middle - 1) for ratio in ratios]
    steps = [
        abs(math.log(float(predicted[t + 1, r, c] / truth[t + 1, r, c]) / float(predicted[t, r, c] / truth[t, r, c])))
        for t, r, c in known if (t + 1, r, c) in known
    ]  # fmt: skip
    found = window_scores(predicted, truth)
    assert found["abs_rel"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert found["change"] == pytest.approx(sum(steps) / len(steps), rel=1e-4)
    assert window_scores(3 * truth, truth) == pytest.approx({"abs_rel": 0, "change": 0}, abs=1e-6)
