import math

import pytest
import torch

from geo4d.cameras.problem import by_frame, refine_settings, shot_problem
from geo4d.cameras.types import CameraSolveConfig
from geo4d.geometry.cameras import project
from geo4d.tracks.types import Tracks

SIZE = (300, 400)


def tracks(num_frames: int = 6) -> Tracks:
    """Three points, seen in frames 0 to 5, 1 to 3 and 4 to 5, in no order of the frames."""
    rows = [(0, t) for t in range(num_frames)] + [(1, t) for t in (1, 2, 3)] + [(2, t) for t in (4, 5)]
    track, frame = torch.tensor(rows).T
    xy = torch.stack([200 + 10.0 * track + frame, 150 - 5.0 * frame], 1)
    return Tracks(track, frame, xy, num_frames, SIZE, torch.arange(num_frames) == 0)


def test_a_shot_is_cut_out_and_its_frames_count_from_zero() -> None:
    problem = shot_problem(tracks(), 2, 5, None, None, CameraSolveConfig())
    assert problem.num_frames == 3
    assert problem.frame.min() == 0
    assert problem.frame.max() == 2
    seen = by_frame(problem)
    assert [ids.tolist() for ids, _ in seen] == [[0, 1], [0, 1], [0, 2]]
    # Relative to the middle of the picture.
    torch.testing.assert_close(seen[0][1], torch.tensor([[2.0, -10], [12, -10]]).double())


def test_frames_without_any_track_are_empty_and_not_left_out() -> None:
    some = tracks()
    keep = some.frame != 3
    some = Tracks(some.track[keep], some.frame[keep], some.xy[keep], 6, SIZE, some.starts_shot)
    seen = by_frame(shot_problem(some, 0, 6, None, None, CameraSolveConfig()))
    assert [len(ids) for ids, _ in seen] == [1, 2, 2, 0, 2, 2]
    nothing = Tracks(some.track[:0], some.frame[:0], some.xy[:0], 6, SIZE, some.starts_shot)
    assert [
        len(ids) for ids, _ in by_frame(shot_problem(nothing, 0, 6, None, None, CameraSolveConfig()))
    ] == [0] * 6


def test_known_intrinsics_are_taken_out_of_the_pixels() -> None:
    """Points through cameras with skew, unequal focal lengths and another principal point look as through plain ones."""
    K = torch.tensor([[500.0, 3, 190], [0, 450, 160], [0, 0, 1]]).double()
    points = torch.tensor([[0.1, -0.2, 2.0], [0.3, 0.1, 3.0]]).double()
    xy = project(points, K)[0].float()
    seen = Tracks(
        torch.arange(2), torch.zeros(2, dtype=torch.long), xy, 1, SIZE, torch.ones(1, dtype=torch.bool)
    )
    problem = shot_problem(seen, 0, 1, K[None], None, CameraSolveConfig())
    torch.testing.assert_close(problem.uv, 500 * points[:, :2] / points[:, 2:], atol=1e-4, rtol=0)
    assert problem.known_focal is not None
    assert problem.known_focal.tolist() == [500]
    assert problem.focal_mode == "fixed"
    assert problem.focal_prior is None
    assert problem.radial_prior == 0


def test_unknown_focal_lengths_have_a_prior() -> None:
    config = CameraSolveConfig()
    problem = shot_problem(tracks(), 0, 6, None, None, config)
    assert problem.prior == (config.focal_prior[0] * SIZE[1], config.focal_prior[1])
    assert problem.focal_prior == problem.prior
    assert shot_problem(tracks(), 0, 6, None, (321.0, 0.1), config).prior == (321.0, 0.1)
    assert {
        problem.focal_mode,
        shot_problem(tracks(), 0, 6, None, None, CameraSolveConfig(zoom=True)).focal_mode,
    } == {
        "shared",
        "per_frame",
    }


def test_the_error_of_a_track_grows_with_the_picture_and_is_never_nothing() -> None:
    config = CameraSolveConfig()

    def error(factor: float) -> float:
        size = (round(300 * factor), round(400 * factor))
        some = tracks()
        some = Tracks(some.track, some.frame, some.xy, 6, size, some.starts_shot)
        return shot_problem(some, 0, 6, None, None, config).pixel_error

    assert error(4) == pytest.approx(2 * error(2))
    assert error(4) == pytest.approx(config.pixel_error * 2000 / 800)
    assert error(0.01) == 0.25


def test_settings_follow_the_kind_of_motion() -> None:
    problem = shot_problem(tracks(), 0, 6, None, None, CameraSolveConfig())
    assert refine_settings(problem, "parallax").with_translation
    for kind in ("rotation", "static"):
        settings = refine_settings(problem, kind)
        assert not settings.with_translation
        assert settings.focal_prior == problem.prior
        assert math.isclose(settings.prior_strength, problem.config.prior_strength)
