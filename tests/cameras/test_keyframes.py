from dataclasses import replace

import pytest
import torch

from geo4d.cameras.keyframes import best_window, choose_keyframes, denser_frames, restricted, view_of
from geo4d.cameras.problem import ShotProblem, shot_problem
from geo4d.cameras.types import CameraSolveConfig
from geo4d.tracks.types import Tracks

SIZE = (300, 400)


def moving(steps: list[float], *, num_points: int = 60) -> ShotProblem:
    """All points of a plane go right by so many pixels from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(num_points, 2, generator=generator) * torch.tensor([400.0, 300.0])
    place = torch.cat([torch.zeros(1), torch.tensor(steps).cumsum(0)])
    frames = len(place)
    track = torch.arange(num_points).repeat_interleave(frames)
    frame = torch.arange(frames).repeat(num_points)
    xy = start[track] + torch.stack([place[frame], torch.zeros(len(frame))], 1)
    seen = Tracks(track, frame, xy, frames, SIZE, torch.arange(frames) == 0)
    return shot_problem(seen, 0, frames, None, None, CameraSolveConfig())


def test_keyframes_are_where_the_picture_has_moved_enough() -> None:
    problem = moving([6.0] * 60)
    wanted = problem.config.keyframe_motion * 500
    chosen = choose_keyframes(problem)
    assert chosen[0] == 0
    assert chosen[-1] == 60
    gaps = chosen.diff()[:-1]  # the last one is the last frame, however near
    assert (6 * gaps > wanted).all()
    assert (6 * (gaps - 1) <= wanted).all()


def test_a_camera_twice_as_fast_needs_twice_as_many() -> None:
    slow, fast = (len(choose_keyframes(moving([step] * 300))) for step in (0.5, 1.0))
    assert fast == pytest.approx(2 * slow, abs=3)


def test_a_shot_that_hardly_moves_is_looked_at_more_closely() -> None:
    problem = moving([0.4] * 60)
    chosen = choose_keyframes(problem)
    assert len(chosen) >= 4
    still = choose_keyframes(moving([0.0] * 60))
    assert still.tolist() == [0, 20, 40, 60]
    assert choose_keyframes(moving([0.0])).tolist() == [0, 1]


def test_frames_between_keyframes_are_even_and_at_most_so_many() -> None:
    found = denser_frames(torch.tensor([0, 10, 12, 40]), 4)
    assert set(found.tolist()) >= {0, 10, 12, 40}
    assert found.tolist() == [0, 2, 5, 7, 10, 11, 12, 19, 26, 33, 40]
    assert denser_frames(torch.tensor([0, 3, 6]), 1).tolist() == [0, 3, 6]


def test_a_view_numbers_cameras_and_points_and_splits_long_tracks() -> None:
    problem = moving([5.0] * 9, num_points=3)
    keyframes = torch.tensor([0, 3, 6, 9])
    whole = view_of(problem, keyframes, span=10)
    assert whole.num_cameras == 4
    assert whole.num_points == 3
    assert whole.track_of_point.tolist() == [0, 1, 2]
    assert torch.bincount(whole.observations.camera).tolist() == [3, 3, 3, 3]
    split = view_of(problem, keyframes, span=2)
    assert split.num_points == 6
    assert split.track_of_point.tolist() == [0, 0, 1, 1, 2, 2]
    for point in range(6):  # each piece is seen by neighbouring cameras
        cameras = split.observations.camera[split.observations.point == point]
        assert cameras.tolist() in ([0, 1], [2, 3])
    # What is seen is what was tracked.
    row = (whole.observations.camera == 2) & (whole.observations.point == 1)
    at = (problem.track == 1) & (problem.frame == 6)
    assert torch.equal(whole.observations.uv[row], problem.uv[at])


def test_points_seen_too_rarely_are_left_out() -> None:
    problem = moving([5.0] * 3, num_points=2)
    keep = (problem.track == 0) | (problem.frame == 1)
    problem = replace(problem, track=problem.track[keep], frame=problem.frame[keep], uv=problem.uv[keep])
    view = view_of(problem, torch.arange(4), span=10, least=2)
    assert view.track_of_point.tolist() == [0]
    assert view_of(problem, torch.arange(4), span=10, least=1).track_of_point.tolist() == [0, 1]


def test_measured_depths_stay_with_their_observations() -> None:
    problem = moving([5.0] * 3, num_points=2)
    log_depth = torch.arange(len(problem.track)).double()
    view = view_of(problem, torch.tensor([1, 3]), log_depth=log_depth, span=10)
    assert view.observations.log_depth is not None
    expected = [float(log_depth[(problem.track == t) & (problem.frame == f)]) for t in (0, 1) for f in (1, 3)]
    assert sorted(view.observations.log_depth.tolist()) == sorted(expected)


def test_a_part_of_the_cameras_has_numbers_of_its_own() -> None:
    view = view_of(moving([5.0] * 9, num_points=40), torch.arange(10), span=20)
    part, chosen = restricted(view, 3, 6, 5)
    assert part.camera.min() == 0
    assert part.camera.max() == 2
    assert len(chosen) == 40
    assert part.point.max() == 39


def test_the_best_window_is_where_no_rotation_explains_the_motion() -> None:
    """Points at two depths: they part in the second half, where the camera goes sideways; before, it stands still."""
    generator = torch.Generator().manual_seed(1)
    n, frames = 80, 20
    start = (torch.rand(n, 2, generator=generator) - 0.5) * torch.tensor([300.0, 200.0])
    near = torch.arange(n) % 2 == 0
    shift = torch.clamp(torch.arange(frames).float() - 10, min=0)
    track = torch.arange(n).repeat_interleave(frames)
    frame = torch.arange(frames).repeat(n)
    move = shift[frame] * torch.where(near[track], 8.0, 1.0)
    xy = start[track] + torch.stack([move, torch.zeros(len(frame))], 1) + torch.tensor([200.0, 150.0])
    seen = Tracks(track, frame, xy, frames, SIZE, torch.arange(frames) == 0)
    problem = shot_problem(seen, 0, frames, None, None, CameraSolveConfig())
    view = view_of(problem, torch.arange(frames), span=40)
    begin, end = best_window(problem, view, 8)
    assert end - begin == 8
    assert begin >= 10
    assert best_window(problem, view, 50) == (0, frames)
