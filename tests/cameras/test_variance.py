import math
from dataclasses import replace

import pytest
import torch

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import BundleState, project_points
from geo4d.cameras.variance import inverse_depth_variance
from geo4d.geometry.poses import so3_exp
from tests.support.adjustments import problem


def test_the_mean_focal_length_of_a_zoom_is_less_sure_than_one_for_all_and_as_sure_where_all_are_tied():
    state, observations = problem(num_cameras=6, num_points=200, span=6)
    config = BundleConfig(robust_width=1e3, prior_strength=1.0)
    spread = {
        smoothness: inverse_depth_variance(
            state, observations, 2, replace(config, focal="per_frame", focal_smoothness=smoothness)
        ).log_focal
        for smoothness in (1e-4, 0.2)
    }
    one = inverse_depth_variance(state, observations, 2, replace(config, focal="shared")).log_focal
    assert spread[1e-4] == pytest.approx(one, rel=0.01)
    assert one < spread[0.2] < math.inf
    fixed = inverse_depth_variance(state, observations, 2, replace(config, focal="fixed"))
    assert math.isinf(fixed.log_focal)


def test_the_variance_of_inverse_depths_is_that_of_many_noisy_adjustments():
    generator = torch.Generator().manual_seed(0)
    N, P, focal, noise = 5, 40, 500.0, 0.2
    w2c = torch.eye(4, dtype=torch.float64).repeat(N, 1, 1)
    w2c[:, 0, 3] = torch.linspace(-0.4, 0.4, N)
    w2c[:, 1:3, 3] = torch.tensor([[0.0, 0.2], [0.1, -0.3], [0, 0], [-0.1, 0.3], [0.05, -0.2]]).double()
    # Turns, without which nothing tells the focal length.
    turns = torch.tensor(
        [[0.1, -0.15, 0.2], [-0.1, -0.1, 0.1], [0, 0, 0], [0.1, 0.1, -0.2], [-0.1, 0.2, 0.3]]
    )
    w2c[:, :3, :3] = so3_exp(turns.double())
    points = torch.rand(P, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2.0, 3.0])
    points = torch.cat([points + torch.tensor([-1.5, -1.0, 2.0]), torch.ones(P, 1)], 1)
    points = points / points.norm(dim=1, keepdim=True)
    state = BundleState(w2c, torch.full((N,), math.log(focal), dtype=torch.float64), points)
    camera, point = torch.arange(N).repeat_interleave(P), torch.arange(P).repeat(N)
    exact = Observations(camera, point, torch.zeros(N * P, 2, dtype=torch.float64), torch.ones(N * P))
    uv, _ = project_points(state, exact)
    exact = Observations(camera, point, uv, torch.ones(N * P, dtype=torch.float64))
    config = BundleConfig(
        focal="shared", robust_width=1e3, num_iterations=8, tolerance=1e-9, reliability=False
    )
    stated = inverse_depth_variance(state, exact, 2, config)
    fixed = torch.zeros(N, dtype=torch.bool)
    fixed[2] = True
    found, focals = [], []
    for _ in range(60):
        noisy = Observations(
            camera,
            point,
            uv + noise * torch.randn(uv.shape, generator=generator, dtype=torch.float64),
            exact.weight,
        )
        result = bundle_adjust(state, noisy, fixed=fixed, config=config).state
        inverse = result.points[:, 3] / (result.points @ result.w2c[2, 2])
        # in the scale that leaves the translations as long along the true ones
        base = (result.w2c[:, :3, 3] * w2c[:, :3, 3]).sum() / w2c[:, :3, 3].square().sum()
        found.append(inverse * base)
        focals.append(result.log_focal[0])
    measured = torch.stack(found).std(0)
    claimed = noise * (stated.point + stated.camera).sqrt()
    assert float((measured / claimed).median()) == pytest.approx(1, abs=0.15)
    assert float(torch.stack(focals).std()) == pytest.approx(noise * math.sqrt(stated.log_focal), rel=0.3)
