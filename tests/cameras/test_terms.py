from dataclasses import replace

import pytest
import torch

from geo4d.cameras.terms import (
    BundleState,
    MeasuredDepth,
    Prior,
    Reprojection,
    project_points,
    reprojection_error,
    rescale,
    seen_by,
    tidy,
)
from geo4d.geometry.poses import inverse
from tests.support.adjustments import disturbed, problem


def with_depth():
    truth, observations = problem(num_cameras=4, num_points=20, span=3, noise=0.5)
    depth = seen_by(truth, observations).z / truth.points[observations.point, 3]
    return truth, replace(
        observations, log_depth=(1.1 * depth).log(), depth_weight=torch.full_like(depth, 7.0)
    )


@pytest.mark.parametrize("term", [Reprojection, MeasuredDepth])
def test_the_gradient_of_a_term_is_that_of_its_cost(term):
    truth, observations = with_depth()
    state, width = replace(disturbed(truth, 0.002, 1.01), radial=0.1), 0.8
    made = term(observations)
    rows = made.rows(state, seen_by(state, observations), width)
    by_focal = torch.zeros(()) if rows.by_focal is None else (rows.by_focal * rows.residual).sum()
    step = 1e-6
    costs = [made.cost(replace(state, log_focal=state.log_focal + s), width) for s in (step, -step)]
    # the cost is a sum of squares where errors are small: its slope is twice J^T r
    assert float(2 * by_focal) == pytest.approx((costs[0] - costs[1]) / (2 * step), rel=1e-4, abs=1e-4)
    by_translation = (rows.by_place * rows.residual[:, None]).sum(0) * state.points[observations.point, 3]
    for axis in range(3):
        costs = []
        for s in (step, -step):
            w2c = state.w2c.clone()
            w2c[2, axis, 3] += s
            costs.append(made.cost(replace(state, w2c=w2c), width))
        slope = 2 * float(by_translation[axis][observations.camera == 2].sum())
        assert slope == pytest.approx((costs[0] - costs[1]) / (2 * step), rel=1e-4, abs=1e-3)


def test_a_prior_pulls_to_its_centre_and_links_neighbours():
    prior, x = Prior(3.0, 0.5, link=2.0), torch.tensor([0.1, 0.9, 0.4], dtype=torch.float64)
    gradient, curvature = prior.gradient(x)
    for k in range(3):
        moved = [prior.cost(x + s * torch.eye(3, dtype=torch.float64)[k]) for s in (1e-5, -1e-5)]
        assert float(2 * gradient[k]) == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-6)
    assert curvature.tolist() == [5.0, 7.0, 5.0]
    assert prior.cost(torch.full((3,), 0.5, dtype=torch.float64)) == 0.0


def test_what_is_behind_a_camera_is_infinitely_wrong():
    truth, observations = problem(num_points=10)
    behind = replace(truth, points=-truth.points)
    assert bool(torch.isinf(reprojection_error(behind, observations)).all())


def test_scale_and_tidying_change_no_picture():
    truth, observations = problem()
    uv, _ = project_points(truth, observations)
    for state in (rescale(truth, 4.0), tidy(truth)):
        torch.testing.assert_close(project_points(state, observations)[0], uv)
    centres = inverse(rescale(truth, 4.0).w2c)[:, :3, 3]
    torch.testing.assert_close(centres, 4 * inverse(truth.w2c)[:, :3, 3])
    loose = BundleState(truth.w2c * 1.0, truth.log_focal, truth.points)
    loose.w2c[1, :3, :3] *= 1.001
    R = tidy(loose).w2c[:, :3, :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand_as(R))
