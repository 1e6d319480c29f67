from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d.fusion.elimination import frame_transform
from geo4d.fusion.objective import SampledObjective
from geo4d.fusion.pixel_terms import Optics, Weights
from geo4d.fusion.samples import take_samples
from geo4d.fusion.variables import number_columns, retract
from tests.support.objectives import random_variables


@pytest.mark.parametrize("typical", [None, 1.1])
@pytest.mark.parametrize("focal", ["shared", "per_frame"])
def test_gradient_of_the_normal_equations(make_wall, typical, focal):
    """What is solved for is the derivative of the cost: the reduced right side plus what the elimination took out."""
    wall = make_wall(num_frames=12, size=(12, 16), noise=0.05)
    samples = take_samples(
        wall.predictions, num_frames=12, size=None, num_samples=192, weight_limit=10, min_disparity=0.05
    )
    variables = random_variables(12, 2, 2, samples.pixels.shape[2])
    optics = Optics(torch.tensor([[8.0, 6.0]]).double().expand(12, 2), torch.ones(12, dtype=torch.float64))
    everything = torch.ones(2, dtype=torch.bool)
    columns = number_columns(
        12,
        samples.window_frames,
        tuple(t.frames for t in samples.trajectories),
        focal=focal,
        free_windows=everything,
        free_disparity=everything,
        free_trajectory=everything,
    )
    weights = Weights(
        torch.tensor([1.0, 0.5]).double(),
        torch.tensor([2.0, 1.0]).double(),
        torch.tensor([0.1, 0.2]).double(),
        0.3,
        typical_disparity_scale=typical,
        focal_smoothness=2.0 if focal == "per_frame" else 0.0,
    )
    objective = SampledObjective(samples, optics, weights, columns, None, frames_per_part=5)
    width = 1e-6  # so small that no norm is smoothed: the weights are those of the sharp cost
    # The depths are not polished, so that none sits in a kink of the cost, where no derivative exists.
    view = objective.view(variables, width, num_polish=0)
    system = objective.system()
    system.assemble(objective.pieces(view, width))
    cost = sum(objective.values(view).values())
    generator = torch.Generator().manual_seed(5)
    for _ in range(6):
        direction = torch.randn(columns.total, generator=generator, dtype=torch.float64).numpy()
        moved = []
        for sign in (1, -1):
            step = torch.from_numpy(np.append(sign * 1e-4 * direction, 0.0))
            shifted = retract(view.variables, step, columns)
            moved.append(sum(objective.values(objective.view(shifted, width, num_polish=0)).values()))
        numeric = (moved[0] - moved[1]) / 2e-4
        # The full gradient, before elimination: rebuild it from the reduced one and the pulls.
        back = 0.0
        for part, curvature_pull in zip(objective.parts, objective._pull, strict=True):
            local = frame_transform(part, view.variables) @ torch.from_numpy(np.append(direction, 0.0))[
                objective._frame_columns[part.first : part.last]
            ].unsqueeze(-1)
            coupling = torch.from_numpy(objective._coupling.array[part.first : part.last])
            change = (local[..., 0][:, None].float() @ coupling)[:, 0]
            # h^T x = change * curvature; gradient lost by elimination is h * pull / curvature.
            curvature = _curvature(objective, part, view, width)
            back += float((change * curvature * curvature_pull).double().sum())
        analytic = float(system.gradient @ direction) + back
        assert analytic == pytest.approx(numeric, rel=2e-2, abs=2e-3 * abs(cost))


def _curvature(objective, part, view, width):
    """Second derivative of each pixel's cost by its log depth, as the elimination uses it."""
    index = objective.parts.index(part)
    seen = list(view.parts)[index]
    depth = seen.log_depth.exp()
    share = part.point_weight / seen.distance.clamp(min=width) / part.count
    curvature = part.total(share) * seen.ray_power * depth * depth
    _, weight = part.disparity_terms(view.variables)
    beta = weight / seen.difference.abs().clamp(min=width) / part.count
    return (curvature + part.total(beta) / (depth * depth)) * (1 + 1e-6) + 1e-12


def test_points_of_a_physical_unit_are_brought_to_their_range(make_wall):
    wall = make_wall(num_frames=8, noise=0.001)
    scaled = replace(
        wall.predictions[0],
        point_map=40 * wall.predictions[0].point_map,
        point_uncertainty=40 * wall.predictions[0].point_uncertainty,
        point_z_offset=0.0,
    )
    arguments = {
        "num_frames": 8,
        "size": None,
        "weight_limit": 1e9,
        "min_disparity": 0.05,
        "num_samples": 100,
    }
    plain = take_samples([wall.predictions[0]], **arguments)
    other = take_samples([scaled], **arguments)
    assert float(other.point_unit[0]) == pytest.approx(40, rel=0.1)
    unit = float(other.point_unit[0]) / 40
    assert torch.allclose(other.points * unit, plain.points, rtol=1e-4, atol=1e-5)
    assert torch.allclose(other.weight, plain.weight * unit, rtol=1e-3)
