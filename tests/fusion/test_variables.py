import pytest
import torch

from geo4d.fusion.variables import number_columns, retract, scale_world
from geo4d.geometry.poses import so3_exp
from tests.support.objectives import random_variables

WINDOWS = (torch.arange(0, 4), torch.arange(2, 6), torch.arange(0, 100, 33))


def columns(**changes):
    free = torch.ones(3, dtype=torch.bool)
    options = {"free_windows": free, "free_disparity": free, "free_trajectory": free, "focal": "shared"}
    return number_columns(100, WINDOWS, WINDOWS, **{**options, **changes})


def test_every_unknown_has_one_number_and_none_is_left_out() -> None:
    found = columns()
    parts = [found.camera, found.window, found.disparity, found.trajectory, found.focal[:1]]
    numbers = torch.cat([part.flatten() for part in parts])
    assert sorted(numbers.tolist()) == list(range(found.total))
    assert found.total == 600 + 21 + 6 + 21 + 1


def test_what_spans_much_of_the_video_and_the_shared_focal_length_form_the_border() -> None:
    found = columns()
    assert (found.window[2] >= found.num_band).all()
    assert (found.disparity[2] >= found.num_band).all()
    assert (found.trajectory[2] >= found.num_band).all()
    assert (found.focal >= found.num_band).all()
    assert found.window[:2].max() < found.num_band
    assert (columns(max_span=99).window < columns(max_span=99).num_band).all()


def test_the_band_is_sorted_by_time() -> None:
    found = columns(focal="per_frame")
    assert (found.camera.diff(dim=0) > 0).all()
    assert found.focal[7] == found.camera[7, -1] + 1
    # A window of the frames 0 to 3 stands at 1.5, between the cameras 1 and 2.
    assert found.camera[1].max() < found.window[0].min()
    assert found.window[0].max() < found.camera[2].min()
    # Frames of one window are never far from it: that makes the matrix banded.
    width = (found.camera[2:6].max() - found.window[1].min()).abs()
    assert width < 4 * (6 + 1) + 3 * 16


def test_what_is_held_has_the_number_of_all_unknowns() -> None:
    held = torch.zeros(3, dtype=torch.bool)
    found = columns(
        free_windows=held, free_disparity=held, free_trajectory=held, free_cameras=False, focal="fixed"
    )
    assert found.total == 0
    for part in (found.camera, found.window, found.disparity, found.trajectory, found.focal):
        assert (part == 0).all()
    one = columns(free_windows=torch.tensor([True, False, True]))
    assert (one.window[1] == one.total).all()
    assert (one.window[[0, 2]] < one.total).all()


def test_a_scaled_trajectory_holds_its_scale_alone() -> None:
    found = columns(scaled_trajectory=torch.tensor([False, True, False]))
    assert found.trajectory[1, 3] == found.total
    assert (found.trajectory[1, [0, 1, 2, 4, 5, 6]] < found.total).all()
    assert (found.trajectory[0] < found.total).all()


def test_a_step_moves_each_unknown_as_it_is_said_to() -> None:
    variables = random_variables(100, 3, 3, 2)
    found = columns(focal="per_frame")
    step = torch.zeros(found.total + 1, dtype=torch.float64)
    step[found.camera[4]] = torch.tensor([0.1, 0, 0, 1, 2, 3]).double()
    step[found.focal[4]] = 0.2
    step[found.window[1]] = torch.tensor([0, 0.1, 0, 0.3, 1, 0, 0]).double()
    step[found.disparity[0]] = torch.tensor([0.5, -0.25]).double()
    step[found.trajectory[0]] = torch.tensor([0, 0, 0.1, -0.2, 0, 0, 2]).double()
    moved = retract(variables, step, found)
    turn = so3_exp(torch.tensor([0.1, 0, 0]).double())
    torch.testing.assert_close(moved.rotation[4], variables.rotation[4] @ turn)
    shift = variables.rotation[4] @ torch.tensor([1.0, 2, 3]).double()  # in the camera's own axes
    torch.testing.assert_close(moved.centre[4], variables.centre[4] + shift)
    assert float(moved.log_focal[4] - variables.log_focal[4]) == pytest.approx(0.2)
    turn = so3_exp(torch.tensor([0, 0.1, 0]).double())
    torch.testing.assert_close(moved.window_rotation[1], turn @ variables.window_rotation[1])
    assert float(moved.window_scale[1] / variables.window_scale[1]) == pytest.approx(2.718281828**0.3)
    assert float(moved.window_translation[1, 0] - variables.window_translation[1, 0]) == pytest.approx(1)
    assert float(moved.disparity_shift[0] - variables.disparity_shift[0]) == pytest.approx(-0.25)
    assert float(moved.trajectory_scale[0] / variables.trajectory_scale[0]) == pytest.approx(
        2.718281828**-0.2
    )
    others = [n for n in range(100) if n != 4]
    torch.testing.assert_close(moved.centre[others], variables.centre[others])
    torch.testing.assert_close(moved.window_translation[0], variables.window_translation[0])


def test_wild_steps_are_bounded() -> None:
    variables = random_variables(100, 3, 3, 2)
    found = columns(focal="per_frame")
    step = torch.full((found.total + 1,), 50.0, dtype=torch.float64)
    step[-1] = 0
    moved = retract(variables, step, found)
    torch.testing.assert_close(moved.log_focal - variables.log_focal, torch.full((100,), 0.3).double())
    assert float((moved.window_scale / variables.window_scale).max()) == pytest.approx(2.718281828)


def test_a_larger_world_shows_the_same_pictures() -> None:
    """Points of windows, depths and aligned disparities seen from the cameras: all lengths times the factor."""
    variables = random_variables(6, 2, 2, 3)
    larger = scale_world(variables, 2.5)
    x = torch.tensor([0.3, -0.2, 1.0]).double()

    def in_camera(v):
        world = v.window_scale[1] * v.window_rotation[1] @ x + v.window_translation[1]
        return v.rotation[2].T @ (world - v.centre[2])

    torch.testing.assert_close(in_camera(larger), 2.5 * in_camera(variables))
    torch.testing.assert_close(larger.log_depth.exp(), 2.5 * variables.log_depth.exp())
    aligned = [v.disparity_scale * 0.7 + v.disparity_shift for v in (variables, larger)]
    torch.testing.assert_close(1 / aligned[1], 2.5 / aligned[0])
    back = scale_world(larger, 1 / 2.5)
    torch.testing.assert_close(back.trajectory_translation, variables.trajectory_translation)
