import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.fusion.alignment import AlignConfig
from geo4d.fusion.all_pixels import evaluate_objective
from geo4d.fusion.elimination import frame_transform
from geo4d.fusion.objective import SampledObjective
from geo4d.fusion.pixel_terms import Optics, Weights
from geo4d.fusion.samples import take_samples
from geo4d.fusion.variables import Variables, number_columns, retract, scale_world
from geo4d.geometry.poses import so3_exp
from geo4d.types import Prediction

GOLDEN = Path(__file__).parent / "golden"


def test_camera_terms_equal_the_recorded_ones():
    with np.load(GOLDEN / "objective_cameras.npz") as archive:
        state = {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}
    predictions = [
        Prediction(
            frame_indices=torch.arange(int(start), int(start) + 16),
            times_s=torch.arange(16).double(),
            window_index=index,
            disparity=torch.zeros(16, 1, 1),
            ray_c2w=state["ray_c2w"][index],
        )
        for index, start in enumerate(state["window_start"])
    ]
    ones = torch.ones(3, dtype=torch.float64)
    variables = Variables(
        rotation=state["c2w"][:, :3, :3],
        centre=state["c2w"][:, :3, 3],
        log_focal=torch.zeros(24, dtype=torch.float64),
        window_scale=ones,
        window_rotation=torch.eye(3, dtype=torch.float64).repeat(3, 1, 1),
        window_translation=torch.zeros(3, 3, dtype=torch.float64),
        disparity_scale=ones,
        disparity_shift=ones,
        trajectory_scale=state["trajectory_scale"],
        trajectory_rotation=state["trajectory_R"],
        trajectory_translation=state["trajectory_t"],
        log_depth=torch.zeros(24, 1),
    )
    config = AlignConfig.published()
    values = evaluate_objective(
        predictions,
        variables,
        lambda frame: torch.ones(1, 1),
        Optics(torch.full((24, 2), 0.5, dtype=torch.float64), torch.ones(24, dtype=torch.float64)),
        disparity_weight=torch.zeros(3, dtype=torch.float64),
        trajectory_weight={int(g): config.trajectory_weight for g in state["kept_trajectory_windows"]},
        smoothness_weight=config.smoothness_weight,
        weight_limit=config.weight_limit,
        min_disparity=config.min_disparity,
    )
    assert values.trajectory == pytest.approx(float(state["loss_trajectory"]), rel=1e-9)
    assert values.smoothness == pytest.approx(float(state["loss_smoothness"]), rel=1e-9)


@pytest.mark.skipif("GEO4D_SHARED" not in os.environ, reason="GEO4D_SHARED does not name the reference data")
def test_all_terms_equal_the_recorded_ones(repository):
    import importlib.util
    import sys

    folder = Path(os.environ["GEO4D_SHARED"]) / "reference" / "alignment"
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(
            "alignment_benchmark", repository / "benchmarks/alignment.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = module.evaluate_recorded_state(str(folder / "objective_small_24x64x96.npz"), [])
    finally:
        sys.path.remove(str(repository / "benchmarks"))
    assert {name for name, term in found["terms"].items() if term["relative_difference"] > 1e-5} == set()


def random_variables(num_frames: int, num_windows: int, num_tracks: int, num_samples: int) -> Variables:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Variables(
        rotation=so3_exp(0.02 * draw(num_frames, 3)),
        centre=0.1 * draw(num_frames, 3),
        log_focal=torch.full((num_frames,), float(np.log(36.0)), dtype=torch.float64),
        window_scale=0.5 + 0.05 * draw(num_windows).abs(),
        window_rotation=so3_exp(0.05 * draw(num_windows, 3)),
        window_translation=torch.tensor([0.0, 0.0, 1.0]).double() + 0.05 * draw(num_windows, 3),
        disparity_scale=1 + 0.1 * draw(num_windows).abs(),
        disparity_shift=0.3 + 0.05 * draw(num_windows),
        trajectory_scale=1 + 0.1 * draw(num_tracks).abs(),
        trajectory_rotation=so3_exp(0.02 * draw(num_tracks, 3)),
        trajectory_translation=0.1 * draw(num_tracks, 3),
        log_depth=(0.2 * draw(num_frames, num_samples)).float(),
    )


def test_pixel_terms_equal_a_plain_sum(make_wall):
    wall = make_wall(num_frames=12, size=(6, 8), noise=0.02)
    variables = random_variables(12, 2, 2, 1)
    depth = 1 + 0.3 * torch.rand(12, 6, 8, generator=torch.Generator().manual_seed(1))
    wall.predictions[0].valid[2, 3] = False
    optics = Optics(torch.tensor([[4.0, 3.0]]).double().expand(12, 2), torch.ones(12, dtype=torch.float64))
    values = evaluate_objective(
        wall.predictions,
        variables,
        lambda frame: depth[frame],
        optics,
        disparity_weight=torch.tensor([2.0, 0.0]).double(),
        trajectory_weight={1: 0.5},
        smoothness_weight=0.1,
        weight_limit=10,
        min_disparity=0.05,
    )
    points = disparity = count = 0.0
    for g, prediction in enumerate(wall.predictions):
        for k, frame in enumerate(prediction.frame_indices.tolist()):
            for row in range(6):
                for column in range(8):
                    count += 1
                    d = float(depth[frame, row, column])
                    ray = np.array([(column + 0.5 - 4) / 36, (row + 0.5 - 3) / 36, 1])
                    world = variables.rotation[frame].numpy() @ (d * ray) + variables.centre[frame].numpy()
                    x = prediction.point_map[k, row, column].double().numpy()
                    moved = float(variables.window_scale[g]) * variables.window_rotation[g].numpy() @ x
                    moved = moved + variables.window_translation[g].numpy()
                    weight = min(0.5 / float(prediction.point_uncertainty[k, row, column]), 10)
                    points += weight * np.linalg.norm(world - moved) * bool(prediction.valid[k, row, column])
                    value = float(prediction.disparity[k, row, column])
                    if g == 0 and value > 0.05:
                        aligned = float(variables.disparity_scale[g]) * value + float(
                            variables.disparity_shift[g]
                        )
                        disparity += 2 * abs(1 / (d + 1e-6) - aligned)
    assert values.points == pytest.approx(points / count, rel=1e-5)
    assert values.disparity == pytest.approx(disparity / count, rel=1e-5)


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


def test_a_larger_world_has_the_same_corrected_disparity_term(make_wall):
    """The dolly zoom: published, a world twice as large has half the disparity term; corrected, the same."""
    wall = make_wall(num_frames=12, size=(12, 16), noise=0.05)
    variables = random_variables(12, 2, 2, 1)
    depth = 1 + 0.3 * torch.rand(12, 12, 16, generator=torch.Generator().manual_seed(1))
    optics = Optics(torch.tensor([[8.0, 6.0]]).double().expand(12, 2), torch.ones(12, dtype=torch.float64))

    def disparity_term(factor: float, typical: float | None) -> float:
        return evaluate_objective(
            wall.predictions,
            scale_world(variables, factor),
            lambda frame: factor * depth[frame],
            optics,
            disparity_weight=torch.full((2,), 2.0).double(),
            trajectory_weight={},
            smoothness_weight=0.0,
            weight_limit=10,
            min_disparity=0.05,
            typical_disparity_scale=typical,
        ).disparity

    assert disparity_term(2.0, None) == pytest.approx(0.5 * disparity_term(1.0, None), rel=1e-4)
    assert disparity_term(2.0, 1.3) == pytest.approx(disparity_term(1.0, 1.3), rel=1e-4)


def test_samples_are_a_jittered_grid_common_to_all_windows(make_wall):
    wall = make_wall(num_frames=16, noise=0.0)
    arguments = {"num_frames": 16, "size": None, "weight_limit": 10, "min_disparity": 0.05}
    samples = take_samples(wall.predictions, num_samples=60, **arguments)
    assert samples.num_windows == 3
    assert 40 <= samples.pixels.shape[2] <= 80
    assert not torch.equal(samples.pixels[0], samples.pixels[1])
    rows = torch.nonzero(samples.frame == 9)[:, 0]
    assert samples.window[rows].tolist() == [1, 2]
    x, y = samples.pixels[9].long()
    expected = wall.predictions[1].point_map[9 - 4, y, x].T
    assert torch.equal(samples.points[rows[0]], expected)
    everything = take_samples(wall.predictions, num_samples=10**6, **arguments)
    assert everything.pixels.shape[2] == 24 * 36


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
