from dataclasses import replace

import numpy as np
import pytest

from geo4d.evaluation.protocols import geo4d
from geo4d.evaluation.score import score
from tests.support.scored import truth


@pytest.mark.parametrize(
    ("poses", "reason"),
    [(np.zeros((12, 3)), "no motion"), (np.arange(12)[:, None] * np.ones((12, 3)), "collinear path")],
)
def test_degenerate_paths_are_reported(plane, poses, reason):
    c2w = plane.c2w.copy()
    c2w[:, :3, 3] = poses
    result = score(truth(plane), replace(plane, c2w=c2w), geo4d())
    assert result.degenerate["poses"] == reason
    assert result.metrics["ate"] is None
