"""The eliminated equations against the same sums written plainly, with every depth in the system and taken out last."""

import numpy as np
import pytest
import torch

from geo4d.fusion.elimination import frame_transform, linearise
from geo4d.fusion.pixel_terms import Optics, PixelTerms, Weights
from geo4d.fusion.samples import take_samples
from geo4d.fusion.variables import Variables, number_columns, retract
from geo4d.geometry.poses import so3_exp

WIDTH = 1e-3
NUM_FRAMES, NUM_WINDOWS = 12, 2


def variables_near(samples) -> Variables:
    g = torch.Generator().manual_seed(4)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    one = torch.ones(NUM_WINDOWS, dtype=torch.float64)
    return Variables(
        rotation=so3_exp(0.05 * draw(NUM_FRAMES, 3)),
        centre=0.1 * draw(NUM_FRAMES, 3),
        log_focal=torch.full((NUM_FRAMES,), float(np.log(14.0)), dtype=torch.float64),
        window_scale=0.5 + 0.1 * draw(NUM_WINDOWS).abs(),
        window_rotation=so3_exp(0.1 * draw(NUM_WINDOWS, 3)),
        window_translation=torch.tensor([0.0, 0.0, 1.0]).double() + 0.1 * draw(NUM_WINDOWS, 3),
        disparity_scale=one + 0.1 * draw(NUM_WINDOWS).abs(),
        disparity_shift=0.3 * one,
        trajectory_scale=one,
        trajectory_rotation=torch.eye(3, dtype=torch.float64).repeat(NUM_WINDOWS, 1, 1),
        trajectory_translation=torch.zeros(NUM_WINDOWS, 3, dtype=torch.float64),
        log_depth=(0.2 * draw(NUM_FRAMES, samples.pixels.shape[2])).float(),
    )


@pytest.fixture
def part(make_wall):
    """Terms of the frames 3 to 9 of a wall, with the variables that they are looked at from."""
    wall = make_wall(num_frames=NUM_FRAMES, size=(12, 16), noise=0.05)
    samples = take_samples(
        wall.predictions,
        num_frames=NUM_FRAMES,
        size=None,
        num_samples=48,
        weight_limit=10,
        min_disparity=0.05,
    )
    ones = torch.ones(NUM_FRAMES, dtype=torch.float64)
    optics = Optics(torch.tensor([[8.0, 6.0]]).double().expand(NUM_FRAMES, 2), 1.1 * ones)

    def make(disparity: float, typical: float | None = None) -> tuple[PixelTerms, Variables]:
        weights = Weights(
            torch.tensor([1.0, 0.5]).double(),
            torch.tensor([disparity, 0.5 * disparity]).double(),
            torch.zeros(NUM_WINDOWS).double(),
            0.0,
            typical_disparity_scale=typical,
        )
        return PixelTerms.of(samples, optics, weights, 7.0, 3, 9), variables_near(samples)

    return make


def plain_equations(part: PixelTerms, variables: Variables, view) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per frame the Schur complement and right side, one observation and pixel after another."""
    found = []
    depth = view.log_depth.exp().double().numpy()
    for n in range(part.last - part.first):
        size = 9 * part.slots + 1
        total, right = np.zeros((size, size)), np.zeros(size)
        for p in range(depth.shape[1]):
            d, ray = depth[n, p], view.rays[n, :, p].double().numpy()
            hessian, gradient = np.zeros((size + 1, size + 1)), np.zeros(size + 1)
            for o in torch.nonzero(part.frame == n)[:, 0].tolist():
                at = 9 * int(part.slot[o])
                q = view.points[o, :, p].double().numpy()
                residual = q - d * ray
                weight = float(part.point_weight[o, p]) / max(np.linalg.norm(residual), WIDTH) / part.count
                jacobian = np.zeros((3, size + 1))
                cross = np.array([[0, -q[2], q[1]], [q[2], 0, -q[0]], [-q[1], q[0], 0]])
                jacobian[:, at : at + 3] = -cross
                jacobian[:, at + 3], jacobian[:, at + 4 : at + 7] = q, np.eye(3)
                jacobian[:, -2] = d * ray * [1, 1, 0]  # a longer focal length pulls the ray to the axis
                jacobian[:, -1] = -d * ray
                hessian += weight * jacobian.T @ jacobian
                gradient += weight * jacobian.T @ residual
                if view.difference is None:
                    continue
                _, weights = part.disparity_terms(variables)
                difference = float(view.difference[o, p])
                weight = float(weights[o, p]) / max(abs(difference), WIDTH) / part.count
                slope = float(part.disparity[o, p])
                if part.weights.typical_disparity_scale is not None:
                    slope += difference / float(variables.disparity_scale[part.window[o]])
                row = np.zeros(size + 1)
                row[at + 7], row[at + 8], row[-1] = -slope, -1.0, -1 / d
                hessian += weight * np.outer(row, row)
                gradient += weight * row * difference
            curvature = hessian[-1, -1] * (1 + 1e-6) + 1e-12
            total += hessian[:-1, :-1] - np.outer(hessian[:-1, -1], hessian[:-1, -1]) / curvature
            right += gradient[:-1] - hessian[:-1, -1] * gradient[-1] / curvature
        found.append((total, right))
    return found


@pytest.mark.parametrize(("disparity", "typical"), [(0.0, None), (2.0, None), (2.0, 1.1)])
def test_equations_are_those_of_plain_sums(part, disparity: float, typical: float | None) -> None:
    terms, variables = part(disparity, typical)
    view = terms.view(variables, WIDTH, num_polish=0)
    found = linearise(terms, variables, view, WIDTH)
    transform = frame_transform(terms, variables)
    for n, (total, right) in enumerate(plain_equations(terms, variables, view)):
        spread = transform[n].numpy()
        hessian, gradient = spread.T @ total @ spread, spread.T @ right
        scale = np.abs(hessian).max()
        np.testing.assert_allclose(found.hessian[n].numpy(), hessian, atol=3e-5 * scale)
        np.testing.assert_allclose(found.gradient[n].numpy(), gradient, atol=1e-4 * np.abs(gradient).max())


def test_frames_and_windows_enter_through_the_points(part) -> None:
    """A small move of a camera or a window, through ``frame_transform``, is the change of the points in camera axes."""
    terms, variables = part(0.0)
    free = torch.ones(NUM_WINDOWS, dtype=torch.bool)
    columns = number_columns(
        NUM_FRAMES,
        tuple(torch.unique(terms.frame[terms.window == w]) + terms.first for w in range(NUM_WINDOWS)),
        (torch.arange(1), torch.arange(1)),
        free_windows=free,
        free_disparity=free,
        free_trajectory=~free,
    )
    step = 1e-3 * torch.randn(columns.total + 1, generator=torch.Generator().manual_seed(1)).double()
    step[-1] = 0
    before = terms.view(variables, WIDTH, num_polish=0).points.double()
    after = terms.view(retract(variables, step, columns), WIDTH, num_polish=0).points.double()
    local = torch.zeros(len(terms.frame), 9, dtype=torch.float64)
    transform = frame_transform(terms, variables)
    for o, (n, slot, window) in enumerate(zip(terms.frame, terms.slot, terms.window, strict=True)):
        unknowns = torch.zeros(transform.shape[2], dtype=torch.float64)
        unknowns[:6] = step[columns.camera[int(n) + terms.first]]
        unknowns[7 + 9 * int(slot) :][:7] = step[columns.window[window]]
        local[o] = (transform[int(n)] @ unknowns)[9 * int(slot) :][:9]
    turn, grow, shift = local[:, :3], local[:, 3], local[:, 4:7]
    expected = (
        torch.linalg.cross(turn[:, None].expand_as(before.mT), before.mT) + grow[:, None, None] * before.mT
    )
    expected = (expected + shift[:, None]).mT
    assert expected.abs().max() > 1e-3
    assert (after - before - expected).abs().max() < 0.01 * expected.abs().max()
