from dataclasses import replace

import pytest
import torch

from geo4d.fusion.camera_terms import (
    TrajectoryRows,
    linearise_focal,
    linearise_smoothness,
    linearise_trajectories,
)
from geo4d.fusion.samples import Trajectory
from geo4d.fusion.variables import Columns, Variables, number_columns, retract
from geo4d.geometry.poses import rigid, so3_exp

WIDTH = 1e-9
"""So small that no norm is blunt: the derivatives are those of the sharp cost."""


def draw(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def cameras() -> tuple[Variables, tuple[Trajectory, ...], Columns]:
    """Five cameras near a path, two trajectories that follow it roughly in frames of their own."""
    g = torch.Generator().manual_seed(11)
    one = torch.ones(2, dtype=torch.float64)
    variables = Variables(
        rotation=so3_exp(0.1 * draw(g, 5, 3)),
        centre=draw(g, 5, 3),
        log_focal=3 + 0.1 * draw(g, 5),
        window_scale=one,
        window_rotation=so3_exp(0.1 * draw(g, 2, 3)),
        window_translation=draw(g, 2, 3),
        disparity_scale=one,
        disparity_shift=one,
        trajectory_scale=torch.tensor([1.3, 0.6], dtype=torch.float64),
        trajectory_rotation=so3_exp(0.2 * draw(g, 2, 3)),
        trajectory_translation=draw(g, 2, 3),
        log_depth=torch.zeros(5, 1),
    )
    trajectories = tuple(
        Trajectory(torch.tensor(f), rigid(so3_exp(0.1 * draw(g, 3, 3)), draw(g, 3, 3)), torch.tensor(w), k)
        for k, (f, w) in enumerate((([0, 1, 2], [1.0, 0.0, 0.5]), ([2, 3, 4], [0.2, 0.3, 0.4])))
    )
    trajectories = tuple(replace(t, weight=t.weight.double()) for t in trajectories)
    free = torch.ones(2, dtype=torch.bool)
    columns = number_columns(
        5,
        (torch.arange(3), torch.arange(2, 5)),
        tuple(t.frames for t in trajectories),
        focal="per_frame",
        free_windows=free,
        free_disparity=free,
        free_trajectory=free,
    )
    return variables, trajectories, columns


def rotation_length(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """sqrt(2) times the angle: what the linearised terms measure instead of the Frobenius norm."""
    trace = (first.mT @ second).diagonal(dim1=-2, dim2=-1).sum(-1)
    return 2**0.5 * torch.acos(((trace - 1) / 2).clamp(-1, 1))


def slope(cost, variables: Variables, columns: Columns, direction: torch.Tensor) -> float:
    """Derivative of a cost along a step of the system, by central differences."""
    ends = [cost(retract(variables, torch.cat([s * 1e-6 * direction, torch.zeros(1).double()]), columns))
            for s in (1, -1)]  # fmt: skip
    return float(ends[0] - ends[1]) / 2e-6


def along(blocks, direction: torch.Tensor) -> float:
    """The same from the blocks; ``total`` stands for what is held."""
    padded = torch.cat([direction, torch.zeros(1, dtype=torch.float64)])
    return float((blocks.gradient * padded[blocks.columns]).sum())


def test_rows_hold_what_has_weight(cameras) -> None:
    variables, trajectories, _ = cameras
    rows = TrajectoryRows.of(trajectories, torch.tensor([2.0, 1.0]).double(), torch.device("cpu"))
    assert rows.trajectory.tolist() == [0, 0, 1, 1, 1]
    assert rows.frame.tolist() == [0, 2, 2, 3, 4]
    assert rows.weight.tolist() == pytest.approx([2.0, 1.0, 0.2, 0.3, 0.4])
    assert len(rows) == 5
    assert rows.rows(slice(1, 3)).frame.tolist() == [2, 2]
    dropped = TrajectoryRows.of(trajectories, torch.tensor([0.0, 1.0]).double(), torch.device("cpu"))
    assert set(dropped.trajectory.tolist()) == {1}
    nothing = TrajectoryRows.of((), torch.zeros(0).double(), torch.device("cpu"))
    assert len(nothing) == 0
    assert nothing.distance(variables).shape == (0,)


def test_distance_is_that_of_the_moved_cameras(cameras) -> None:
    variables, trajectories, _ = cameras
    rows = TrajectoryRows.of(trajectories, torch.ones(2).double(), torch.device("cpu"))
    for row in range(len(rows)):
        k, frame = int(rows.trajectory[row]), int(rows.frame[row])
        turn = variables.trajectory_rotation[k]
        rotation = turn @ rows.c2w[row, :3, :3]
        centre = variables.trajectory_scale[k] * turn @ rows.c2w[row, :3, 3]
        centre = centre + variables.trajectory_translation[k]
        expected = torch.linalg.norm(rotation.T @ variables.rotation[frame] - torch.eye(3).double())
        expected = expected + torch.linalg.norm(centre - variables.centre[frame])
        assert float(rows.distance(variables)[row]) == pytest.approx(float(expected), rel=1e-12)


def test_gradient_of_the_smoothness(cameras) -> None:
    variables, _, columns = cameras

    def cost(v: Variables) -> torch.Tensor:
        turn = rotation_length(v.rotation[:-1], v.rotation[1:])
        return 0.7 * (turn + (v.centre[1:] - v.centre[:-1]).norm(dim=1)).sum()

    parts = [linearise_smoothness(variables, 0.7, columns, WIDTH, a, b) for a, b in ((0, 2), (2, 4))]
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        direction = draw(generator, columns.total)
        found = sum(along(part, direction) for part in parts)
        assert found == pytest.approx(slope(cost, variables, columns, direction), rel=1e-5, abs=1e-6)


def test_gradient_of_the_trajectories(cameras) -> None:
    variables, trajectories, columns = cameras
    rows = TrajectoryRows.of(trajectories, torch.tensor([2.0, 1.0]).double(), torch.device("cpu"))

    def cost(v: Variables) -> torch.Tensor:
        rotation, centre = rows.moved(v)
        turn = rotation_length(rotation, v.rotation[rows.frame])
        return (rows.weight * (turn + (centre - v.centre[rows.frame]).norm(dim=1))).sum()

    blocks = linearise_trajectories(rows, variables, columns, WIDTH)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        direction = draw(generator, columns.total)
        assert along(blocks, direction) == pytest.approx(
            slope(cost, variables, columns, direction), rel=1e-5, abs=1e-6
        )


def test_focal_lengths_on_a_line_cost_nothing(cameras) -> None:
    variables, _, columns = cameras
    straight = replace(variables, log_focal=torch.linspace(3, 4, 5, dtype=torch.float64))
    assert linearise_focal(straight, 2.0, columns).gradient.abs().max() < 1e-12
    blocks = linearise_focal(variables, 2.0, columns)

    def cost(v: Variables) -> torch.Tensor:
        return 0.5 * 2.0 * (v.log_focal.diff(n=2) ** 2).sum()

    direction = draw(torch.Generator().manual_seed(4), columns.total)
    assert along(blocks, direction) == pytest.approx(slope(cost, variables, columns, direction), rel=1e-6)
    assert torch.allclose(
        blocks.hessian[0], 2.0 * torch.tensor([1.0, -2, 1]).outer(torch.tensor([1.0, -2, 1])).double()
    )
