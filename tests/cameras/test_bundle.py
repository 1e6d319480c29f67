from dataclasses import replace
from functools import partial

import pytest
import torch

from geo4d.cameras import bundle, terms
from geo4d.cameras.bundle import BundleConfig, BundleProblem, _runs_of_cameras, bundle_adjust
from geo4d.cameras.observations import Observations
from geo4d.cameras.points import triangulate
from geo4d.cameras.terms import BundleState, reprojection_error, rescale
from geo4d.geometry.poses import rigid, so3_exp
from geo4d.optimise import scratch
from tests.support.adjustments import disturbed, problem, tangent_basis


@pytest.mark.parametrize("focal", ["fixed", "shared", "per_frame"])
def test_exact_observations_are_reached_from_a_disturbed_start(focal):
    truth, observations = problem()
    start = disturbed(truth, focal_factor=1.0 if focal == "fixed" else 1.05)
    config = BundleConfig(num_iterations=60, focal=focal, tolerance=1e-12)
    result = bundle_adjust(start, observations, config=config)
    assert result.error.max() < 1e-3
    assert torch.allclose(result.state.log_focal.exp(), torch.tensor(400.0).double(), rtol=2e-3)


def test_gradient_and_normal_matrix_match_autograd():
    truth, observations = problem(num_cameras=4, num_points=12, span=3, noise=0.5)
    state = disturbed(truth, 0.01)
    fixed = torch.zeros(4, dtype=torch.bool)
    config = BundleConfig(robust_width=1e6)
    system = BundleProblem(observations, fixed, config, 4, 12).equations(state, config.robust_width)

    def residual(x):
        twist, focal, tangent = x[:24].reshape(4, 6), x[24], x[25:].reshape(12, 3)
        motion = rigid(so3_exp(twist[:, 3:]), twist[:, :3])
        points = state.points + (tangent_basis(state.points) @ tangent[..., None])[..., 0]
        p = ((motion @ state.w2c)[observations.camera, :3] @ points[observations.point][..., None])[..., 0]
        return ((state.log_focal[0] + focal).exp() * p[:, :2] / p[:, 2:] - observations.uv).reshape(-1)

    x = torch.zeros(25 + 36, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(residual, x)
    H, g = J.T @ J, J.T @ residual(x)
    for c in range(4):
        block = slice(6 * c, 6 * c + 6)
        torch.testing.assert_close(system.U[c, :6, :6], H[block, block])
        torch.testing.assert_close(system.U[c, :6, -1], g[block])
        torch.testing.assert_close(system.U[c, :6, 6], H[block, 24])
    torch.testing.assert_close(system.U[:, 6, 6].sum(), H[24, 24])
    torch.testing.assert_close(system.w[-1].T.reshape(-1), g[25:])
    torch.testing.assert_close(
        torch.block_diag(*system.V.permute(2, 0, 1)), H[25:, 25:], rtol=1e-7, atol=1e-6
    )

    # the whole damped step against the dense normal equations, in several block layouts
    damping = 0.1
    D = H + damping * torch.diag(H.diagonal())
    expected = -torch.linalg.solve(D, g)
    for group in (1, 2, 12):
        problem_in_blocks = BundleProblem(observations, fixed, replace(config, group=group), 4, 12)
        moved = problem_in_blocks.linearise(state, config.robust_width)(damping)
        assert moved is not None
        torch.testing.assert_close(moved.log_focal, state.log_focal + expected[24], atol=1e-6, rtol=0)
        twist = expected[:24].reshape(4, 6)
        motion = rigid(so3_exp(twist[:, 3:]), twist[:, :3])
        torch.testing.assert_close(moved.w2c, motion @ state.w2c, atol=1e-6, rtol=0)


def test_long_sequences_give_the_same_answer_in_blocks():
    truth, observations = problem(num_cameras=40, num_points=300, span=5, noise=0.3)
    start = disturbed(truth, 0.01)
    a = bundle_adjust(start, observations, config=BundleConfig(group=3, num_iterations=6, tolerance=0.0))
    b = bundle_adjust(start, observations, config=BundleConfig(group=100, num_iterations=6, tolerance=0.0))
    assert a.cost == pytest.approx(b.cost, rel=1e-6)
    torch.testing.assert_close(a.state.w2c, b.state.w2c, atol=1e-5, rtol=1e-4)


def test_outliers_do_not_move_the_cameras():
    truth, observations = problem(num_cameras=8, num_points=120, span=5)
    bad = torch.arange(len(observations.uv)) % 7 == 0
    uv = torch.where(bad[:, None], observations.uv + 40.0, observations.uv)
    spoiled = Observations(observations.camera, observations.point, uv, observations.weight)
    config = BundleConfig(num_iterations=60, focal="fixed", tolerance=1e-9)
    result = bundle_adjust(disturbed(truth, 0.005, 1.0), spoiled, config=config)
    assert result.error[~bad].median() < 0.05


def test_held_cameras_do_not_move():
    truth, observations = problem()
    fixed = torch.tensor([True, True, False, False, True, False])
    start = disturbed(truth)
    result = bundle_adjust(start, observations, fixed=fixed, config=BundleConfig(focal="fixed"))
    torch.testing.assert_close(result.state.w2c[fixed], start.w2c[fixed])
    assert (result.state.w2c[~fixed] - start.w2c[~fixed]).abs().max() > 1e-3


def test_without_translation_centres_stay():
    truth, observations = problem()
    start = BundleState(
        rigid(truth.w2c[:, :3, :3], torch.zeros(6, 3).double()), truth.log_focal, truth.points
    )
    result = bundle_adjust(start, observations, config=BundleConfig(with_translation=False))
    assert result.state.w2c[:, :3, 3].abs().max() < 1e-12


def test_the_prior_decides_where_the_tracks_do_not():
    # a single camera sees nothing about its focal length
    truth, observations = problem(num_cameras=2, num_points=30, span=2)
    still = Observations(observations.camera * 0, observations.point, observations.uv, observations.weight)
    config = BundleConfig(focal_prior=(500.0, 0.1), prior_strength=10.0, with_translation=False)
    result = bundle_adjust(truth, still.select(observations.camera == 0), config=config)
    assert float(result.state.log_focal[0].exp()) == pytest.approx(500, rel=0.02)


def test_triangulation_is_exact_and_scale_is_free():
    truth, observations = problem()
    points = triangulate(truth.w2c, truth.log_focal, observations, len(truth.points))
    torch.testing.assert_close(points, truth.points, atol=1e-9, rtol=1e-7)
    error = reprojection_error(rescale(truth, 3.0), observations)
    assert error.max() < 1e-9


def test_radial_distortion_is_found_when_asked():
    truth, observations = problem(num_cameras=8, num_points=150, span=6)
    plane = observations.uv / 400.0
    bent = replace(observations, uv=observations.uv * (1 + 0.12 * plane.square().sum(1, keepdim=True)))
    config = BundleConfig(num_iterations=60, radial_prior=1.0, prior_strength=1e-4, tolerance=1e-12)
    result = bundle_adjust(disturbed(truth, 0.01, 1.02), bent, config=config)
    assert result.state.radial == pytest.approx(0.12, abs=5e-3)
    assert float(result.state.log_focal[0].exp()) == pytest.approx(400, rel=0.01)
    assert result.error.max() < 0.05


def test_measured_depth_fixes_the_scale_and_its_jacobian_is_exact():
    truth, observations = problem(num_cameras=5, num_points=60, span=4)
    p = (truth.w2c[observations.camera, :3] @ truth.points[observations.point][..., None])[..., 0]
    depth = p[:, 2] / truth.points[observations.point, 3]
    measured = replace(observations, log_depth=depth.log(), depth_weight=torch.full_like(depth, 20.0))
    start = disturbed(rescale(truth, 1.3), 0.01, 1.0)
    start = replace(start, w2c=torch.cat([truth.w2c[:1], start.w2c[1:]]))
    config = BundleConfig(num_iterations=60, focal="fixed", tolerance=1e-14)
    result = bundle_adjust(start, measured, config=config)
    torch.testing.assert_close(result.state.w2c, truth.w2c, atol=1e-4, rtol=0)

    fixed = torch.zeros(5, dtype=torch.bool)
    wide = BundleConfig(robust_width=1e6)
    state = disturbed(truth, 0.01)
    system = BundleProblem(measured, fixed, wide, 5, 60).equations(state, wide.robust_width)

    def cost(tangent):
        points = state.points + (tangent_basis(state.points) @ tangent[..., None])[..., 0]
        q = (state.w2c[measured.camera, :3] @ points[measured.point][..., None])[..., 0]
        uv = state.log_focal[0].exp() * q[:, :2] / q[:, 2:] - measured.uv
        log_ratio = 20 * ((q[:, 2] / points[measured.point, 3]).log() - measured.log_depth)
        return 0.5 * (uv.square().sum() + log_ratio.square().sum())

    gradient = torch.autograd.functional.jacobian(cost, torch.zeros(60, 3, dtype=torch.float64))
    torch.testing.assert_close(system.w[-1].T, gradient)


@pytest.mark.parametrize("with_depth", [False, True])
def test_an_adjustment_in_pieces_on_disk_is_the_same(monkeypatch, with_depth):
    truth, observations = problem(num_cameras=12, num_points=150, span=5, noise=0.3)
    if with_depth:
        p = (truth.w2c[observations.camera, :3] @ truth.points[observations.point][..., None])[..., 0]
        measured = (p[:, 2] / truth.points[observations.point, 3]).log()
        observations = replace(observations, log_depth=measured, depth_weight=torch.full_like(measured, 20.0))
    config = BundleConfig(num_iterations=6, radial_prior=0.1, tolerance=0.0)

    def solve():
        system = BundleProblem(observations, torch.zeros(12, dtype=torch.bool), config, 12, 150)
        return len(system.runs), bundle_adjust(disturbed(truth, 0.01), observations, config=config)

    pieces, whole = solve()
    assert pieces == 1
    monkeypatch.setattr(bundle, "AT_ONCE", 100)
    monkeypatch.setattr(terms, "AT_ONCE", 90)
    monkeypatch.setattr(scratch, "HELD_BYTES", 0)
    monkeypatch.setattr(scratch, "RESIDENT_BYTES", 4096)
    pieces, apart = solve()
    assert pieces > 3
    close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-8)  # sums in another order
    close(apart.state.w2c, whole.state.w2c)
    close(apart.state.points, whole.state.points)
    close(apart.error, whole.error)
    close(apart.pose_information, whole.pose_information)
    assert apart.log_focal_spread == pytest.approx(whole.log_focal_spread, rel=1e-8)


def test_cameras_without_observations_are_in_some_piece():
    assert list(_runs_of_cameras([3, 0, 2, 0], 3)) == [(slice(0, 3), [3]), (slice(3, 5), [0, 2, 0])]
    assert list(_runs_of_cameras([0, 0], 3)) == [(slice(0, 0), [0, 0])]
