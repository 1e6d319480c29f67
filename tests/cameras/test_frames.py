import math

import pytest
import torch

from geo4d.cameras.frames import between_keyframes, planar_share, unknown_shot
from geo4d.cameras.keyframes import view_of
from geo4d.cameras.problem import shot_problem
from geo4d.cameras.terms import BundleState
from geo4d.cameras.types import CameraSolveConfig
from geo4d.geometry.poses import inverse, rigid, rotation_angle, so3_exp
from geo4d.tracks.types import Tracks

FOCAL, FRAMES, POINTS, SIZE = 500.0, 9, 60, (480, 640)


def cameras(*, turns_only: bool = False) -> torch.Tensor:
    """World to camera along a path that no interpolation between its ends follows."""
    s = torch.arange(FRAMES).double()
    turn = so3_exp(torch.stack([0 * s, 0.05 * torch.sin(s), 0.02 * s], 1))
    centre = torch.stack([0.1 * s, 0.05 * torch.cos(2 * s) - 0.05, 0 * s], 1)
    return inverse(rigid(turn, 0 * centre if turns_only else centre))


def solved(*, turns_only: bool = False, keyframes: tuple[int, ...] = (0, 4, 8)):
    """Exact tracks of random points, and the state in which only the keyframes are known."""
    g = torch.Generator().manual_seed(0)
    points = torch.rand(POINTS, 3, generator=g).double() * torch.tensor([4.0, 3.0, 4.0]) + torch.tensor(
        [-2.0, -1.5, 4.0]
    )
    w2c = cameras(turns_only=turns_only)
    seen = points @ w2c[:, :3, :3].mT + w2c[:, None, :3, 3]
    xy = FOCAL * seen[..., :2] / seen[..., 2:] + torch.tensor([320.0, 240.0])
    track = torch.arange(POINTS).repeat_interleave(FRAMES)
    frame = torch.arange(FRAMES).repeat(POINTS)
    tracks = Tracks(
        track, frame, xy.transpose(0, 1).reshape(-1, 2).float(), FRAMES, SIZE, torch.arange(FRAMES) == 0
    )
    problem = shot_problem(tracks, 0, FRAMES, None, None, CameraSolveConfig())
    keys = torch.tensor(keyframes)
    weight = torch.zeros(POINTS, 1).double() if turns_only else torch.ones(POINTS, 1).double()
    state = BundleState(
        w2c[keys], torch.full((len(keys),), FOCAL).double().log(), torch.cat([points, weight], 1)
    )
    return problem, view_of(problem, keys, span=20), state, w2c


def error(found: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """(largest turn in radians, largest distance of the centres)."""
    turn = rotation_angle(found[:, :3, :3].mT @ truth[:, :3, :3]).max()
    return float(turn), float((inverse(found) - inverse(truth))[:, :3, 3].norm(dim=1).max())


def test_frames_between_are_fitted_to_the_points_that_they_see() -> None:
    problem, view, state, truth = solved()
    w2c, focal = between_keyframes(problem, view, state, "parallax", problem.track)
    turn, move = error(w2c, truth)
    assert turn < 1e-4
    assert move < 1e-3
    torch.testing.assert_close(focal, torch.full((FRAMES,), FOCAL).double())


def test_without_points_they_are_interpolated() -> None:
    problem, view, state, truth = solved()
    nothing = torch.full_like(problem.track, -1)
    w2c, _ = between_keyframes(problem, view, state, "parallax", nothing)
    torch.testing.assert_close(w2c[[0, 4, 8]], truth[[0, 4, 8]])
    middle = inverse(w2c)[2, :3, 3]
    ends = inverse(truth)[[0, 4], :3, 3]
    torch.testing.assert_close(middle, ends.mean(0), atol=0.02, rtol=0)
    assert error(w2c, truth)[1] > 0.02  # the path bends where nobody looked


def test_turning_cameras_are_fitted_by_directions_alone() -> None:
    problem, view, state, truth = solved(turns_only=True)
    w2c, _ = between_keyframes(problem, view, state, "rotation", problem.track)
    turn, move = error(w2c, truth)
    assert turn < 1e-4
    assert move < 1e-9


def test_focal_lengths_change_steadily_between_keyframes() -> None:
    problem, view, state, _ = solved()
    zoomed = BundleState(state.w2c, torch.tensor([400.0, 400.0, 800.0]).double().log(), state.points)
    _, focal = between_keyframes(problem, view, zoomed, "parallax", torch.full_like(problem.track, -1))
    assert focal[:5].tolist() == pytest.approx([400] * 5)
    assert float(focal[6]) == pytest.approx(math.sqrt(400 * 800))  # halfway in the logarithm
    assert float(focal[8]) == pytest.approx(800)


def test_an_unknown_shot_says_so_and_claims_nothing() -> None:
    problem, *_ = solved()
    found = unknown_shot(problem, "too few tracks")
    assert found.motion.kind == "unknown"
    assert found.motion.statement == "frames 0-8: too few tracks; the pose is a placeholder"
    assert math.isinf(found.motion.focal_spread)
    assert (found.confidence == 0).all()
    torch.testing.assert_close(found.w2c, torch.eye(4).double().repeat(FRAMES, 1, 1))
    assert found.focal.tolist() == pytest.approx([problem.prior[0]] * FRAMES)
    assert found.depth_range.isnan().all()


def test_the_share_on_one_plane() -> None:
    g = torch.Generator().manual_seed(0)
    points = torch.rand(100, 3, generator=g).double() * 4 + torch.tensor([0.0, 0, 4])
    flat = points.clone()
    flat[:, 2] = 6 + 0.3 * flat[:, 0] - 0.2 * flat[:, 1]
    assert planar_share(flat, 1e-3) == 1
    assert planar_share(points, 1e-3) < 0.3
    mixed = torch.cat([flat[:70], points[:30]])
    assert planar_share(mixed, 1e-3) == pytest.approx(0.7, abs=0.08)
    assert planar_share(flat[:19], 1e-3) == 0  # too few to say
    assert planar_share(flat * torch.tensor([1.0, 0, 0]), 1e-3) == 0  # on one line there is no plane
