"""Exact least absolute deviations against linear programming, slow references and known answers."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from geo4d.evaluation.l1 import DegenerateInput, fit_scale_l1, fit_scale_shift_l1


def objective(x, y, scale, shift, weight=None):
    residual = (scale * x.double() + shift - y.double()).abs()
    return float((residual if weight is None else residual * weight.double()).sum())


def linear_program(x, y, weight):
    n = x.numel()
    w = np.ones(n) if weight is None else weight.double().numpy()
    constraints = np.c_[x.double().numpy(), np.ones(n), np.eye(n), -np.eye(n)]
    bounds = [(None, None)] * 2 + [(0, None)] * (2 * n)
    # By default every one of the n constraints is kept to 1e-7 only, and the minimum comes out too low by as much.
    exact = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    cost = np.r_[0, 0, w, w]
    return linprog(cost, A_eq=constraints, b_eq=y.double().numpy(), bounds=bounds, options=exact).fun


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 60),
    noise=st.sampled_from([0.0, 0.1, 3.0]),
    weighted=st.booleans(),
    quantised=st.booleans(),
)
@example(seed=0, n=31, noise=0.0, weighted=False, quantised=False)
def test_scale_shift_reaches_the_linear_program(seed, n, noise, weighted, quantised):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, generator=g) * 10 + 1
    y = -1.5 * x + 4 + noise * torch.randn(n, generator=g)
    if quantised:
        x, y = (x * 2).round() / 2, (y * 2).round() / 2
    weight = torch.rand(n, generator=g) + 0.01 if weighted else None
    if bool((x == x[0]).all()):
        return
    scale, shift = fit_scale_shift_l1(x, y, weight)
    best = linear_program(x, y, weight)
    assert objective(x, y, scale, shift, weight) <= best + 1e-7 * max(best, 1.0)


def test_levels_of_a_large_problem_agree_with_a_dense_search():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(60_000, generator=g) ** 2 * 60 + 1
    y = (
        2.5 * x
        + 1
        + x * 0.2 * torch.randn(60_000, generator=g)
        + 20 * (torch.rand(60_000, generator=g) < 0.1)
    )
    scale, shift = fit_scale_shift_l1(x, y)
    best = objective(x, y, scale, shift)
    for delta in (1e-4, 1e-3, 1e-2):
        for s in (-delta, 0, delta):
            level = (y.double() - (scale + s) * x.double()).median()
            assert objective(x, y, scale + s, level) >= best * (1 - 1e-9)


def test_scale_is_the_weighted_median_of_ratios():
    x = torch.tensor([1.0, 2.0, 4.0, -1.0])
    y = torch.tensor([3.0, 6.0, 4.0, 1.0])
    found = float(fit_scale_l1(x, y))
    grid = torch.linspace(-5, 5, 10_001, dtype=torch.float64)
    losses = (grid[:, None] * x.double() - y.double()).abs().sum(1)
    assert float((found * x.double() - y.double()).abs().sum()) <= float(losses.min()) + 1e-12


def test_robust_against_a_third_of_outliers():
    x = torch.linspace(1, 10, 3000)
    y = 2 * x + 1
    y[::3] = 100
    scale, shift = fit_scale_shift_l1(x, y)
    assert abs(float(scale) - 2) < 1e-5
    assert abs(float(shift) - 1) < 1e-4


@pytest.mark.parametrize("x", [torch.ones(5), torch.ones(1), torch.zeros(0)])
def test_undetermined_input_says_so(x):
    with pytest.raises(DegenerateInput):
        fit_scale_shift_l1(x, torch.arange(len(x), dtype=torch.float32))


def test_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        fit_scale_shift_l1(torch.tensor([1.0, float("nan"), 2.0]), torch.ones(3))


def test_zero_weights_are_dropped():
    x, y = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 4.0, 6.0, 100.0])
    scale, shift = fit_scale_shift_l1(x, y, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert abs(float(scale) - 2) < 1e-9
    assert abs(float(shift)) < 1e-9
    with pytest.raises(DegenerateInput):
        fit_scale_l1(torch.zeros(3), torch.ones(3))
