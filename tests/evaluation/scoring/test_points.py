import numpy as np
import pytest

from geo4d.evaluation.protocols import geometrycrafter
from geo4d.evaluation.score import score
from tests.support.scored import truth


def test_points_follow_geometrycrafter(plane):
    result = score(truth(plane), plane, geometrycrafter(max_depth=70, weighted=True))
    assert result.metrics["point_rel"] < 1e-5
    assert result.metrics["point_delta"] == 1
    assert result.metrics["point_scale"] == pytest.approx(3, rel=1e-5)
    wide = plane.intrinsics * np.array([[0.5], [0.5], [1.0]])
    wide[:, :2, 2] = plane.intrinsics[:, :2, 2]
    assert (
        score(truth(plane, intrinsics=wide), plane, geometrycrafter(max_depth=70, weighted=True)).metrics[
            "point_rel"
        ]
        > 0.1
    )
