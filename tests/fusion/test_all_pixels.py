import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.fusion.alignment import AlignConfig
from geo4d.fusion.all_pixels import evaluate_objective
from geo4d.fusion.pixel_terms import Optics
from geo4d.fusion.variables import Variables, scale_world
from geo4d.types import Prediction
from tests.support.objectives import random_variables

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
