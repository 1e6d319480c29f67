import math

from geo4d.cameras.start import find_start
from geo4d.cameras.terms import reprojection_error
from tests.support.adjustments import problem


def test_hypotheses_on_few_points_find_cameras_that_explain_all():
    _, observations = problem(num_cameras=8, num_points=400, span=6, noise=0.1)
    start = find_start(
        observations,
        8,
        400,
        width=640,
        pixel_error=0.25,
        focal=None,
        prior=(500.0, 0.4),
        prior_strength=2.0,
        search_points=100,
    )
    assert len(start.bundle.state.points) == 400
    assert float(reprojection_error(start.bundle.state, observations).median()) < 0.2
    assert abs(float(start.bundle.state.log_focal[0]) - math.log(400)) < 0.1
    assert start.static.double().mean() > 0.9
