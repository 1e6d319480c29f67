from dataclasses import replace

import pytest
import torch

from geo4d.cameras.bundle import BundleResult
from geo4d.cameras.kind import select_kind, turning_kind
from geo4d.cameras.problem import shot_problem
from geo4d.cameras.terms import BundleState
from geo4d.cameras.types import CameraSolveConfig
from geo4d.geometry.poses import rigid, so3_exp
from geo4d.tracks.types import Tracks

FOCAL, POINTS, CAMERAS = 500.0, 50, 6


@pytest.fixture
def problem():
    nothing = torch.zeros(0, dtype=torch.long)
    seen = Tracks(
        nothing, nothing, torch.zeros(0, 2), CAMERAS, (480, 640), torch.zeros(CAMERAS, dtype=torch.bool)
    )
    return shot_problem(seen, 0, CAMERAS, None, None, CameraSolveConfig())


def result(step_rad: float, cost: float = 1.0, error: float = 1.0) -> BundleResult:
    turn = so3_exp(torch.arange(CAMERAS).double()[:, None] * torch.tensor([[0.0, step_rad, 0.0]]).double())
    state = BundleState(
        rigid(turn, torch.zeros(CAMERAS, 3).double()),
        torch.full((CAMERAS,), FOCAL).double().log(),
        torch.zeros(POINTS, 4).double(),
    )
    values = dict.fromkeys(BundleResult.__dataclass_fields__)
    values |= {"state": state, "cost": cost, "error": torch.full((POINTS * CAMERAS,), error).double()}
    made = object.__new__(BundleResult)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def test_a_camera_turns_when_pixels_move_by_more_than_the_error_of_two_tracks(problem) -> None:
    limit = 2 * problem.pixel_error / FOCAL
    last = CAMERAS - 1
    assert turning_kind(problem, result(1.1 * limit / last)) == "rotation"
    assert turning_kind(problem, result(0.9 * limit / last)) == "static"
    assert turning_kind(problem, result(0.0)) == "static"


def rows(problem) -> torch.Tensor:
    return torch.ones(POINTS * CAMERAS, dtype=torch.bool)


def costs(problem, times_noise: float) -> tuple[float, float]:
    """(cost with translation, cost without) so that each further unknown explains so many times the noise."""
    spare = 2 * POINTS * CAMERAS - 3 * POINTS - 6 * CAMERAS
    noise = problem.pixel_error**2
    with_translation = noise * spare
    return with_translation, with_translation + times_noise * noise * (POINTS + 3 * CAMERAS)


def test_translation_is_real_when_it_explains_more_than_noise_would(problem) -> None:
    for times, kind in ((1.2, "parallax"), (0.8, "rotation")):
        cost, without = costs(problem, times * problem.config.parallax_test)
        turned = result(0.1, without, error=5 * problem.pixel_error)
        assert select_kind(problem, turned, cost, POINTS, rows(problem), CAMERAS)[0] == kind


def test_parallax_that_nobody_could_see_is_none(problem) -> None:
    cost, without = costs(problem, 50 * problem.config.parallax_test)
    seen = select_kind(
        problem, result(0.1, without, 0.6 * problem.pixel_error), cost, POINTS, rows(problem), CAMERAS
    )
    unseen = select_kind(
        problem, result(0.1, without, 0.4 * problem.pixel_error), cost, POINTS, rows(problem), CAMERAS
    )
    assert seen == ("parallax", pytest.approx(0.6 * problem.pixel_error))
    assert unseen == ("rotation", pytest.approx(0.4 * problem.pixel_error))


def test_without_observations_the_camera_only_turns(problem) -> None:
    nothing = torch.zeros(POINTS * CAMERAS, dtype=torch.bool)
    kind, parallax = select_kind(problem, result(0.1, 100.0), 1.0, 0, nothing, CAMERAS)
    assert kind == "rotation"
    assert parallax == 0


def test_a_perfect_fit_does_not_make_noise_of_nothing(problem) -> None:
    """With a cost of zero the noise is a tenth of a track's error, not zero: a trace of a gain proves nothing."""
    turned = result(0.1, 1e-3 * problem.pixel_error**2, error=5.0)
    assert select_kind(problem, turned, 0.0, POINTS, rows(problem), CAMERAS)[0] == "rotation"
    assert replace(problem, pixel_error=2.0).pixel_error == 2
