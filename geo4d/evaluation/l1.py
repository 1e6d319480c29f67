"""Least absolute deviations: exact scale, and exact scale and shift, of millions of samples.

The sum of absolute residuals is convex and piecewise linear, so a sample whose residual cannot change its sign in the
neighbourhood of the optimum enters as a linear term only. A random part of the data gives that neighbourhood, one pass
over all data finds the few samples that stay undecided, and the remaining small problem is solved to a vertex.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_LEVEL_SIZES = (10_000, 400_000)
_CHUNK = 1 << 20
_GOLDEN = (math.sqrt(5) - 1) / 2


class DegenerateInput(ValueError):
    """The input leaves the answer undetermined; the message is the reason that reports show."""


def fit_scale_l1(
    source: Float[Tensor, " n"], target: Float[Tensor, " n"], weight: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Factor with the least weighted sum of |factor * source - target|, exactly.

    Args:
        weight: >= 0; zero drops a sample.
    Raises:
        DegenerateInput: no sample has weight and a source other than 0.
    """
    source, target = source.double(), target.double()
    pull = source.abs() if weight is None else source.abs() * weight.double()
    usable = pull > 0
    if not bool(usable.any()):
        raise DegenerateInput("no sample with weight and a source other than 0")
    ratio = target[usable] / source[usable]
    return _weighted_rank(ratio, pull[usable], 0.5 * float(pull[usable].sum()))


def fit_scale_shift_l1(
    source: Float[Tensor, " n"], target: Float[Tensor, " n"], weight: Float[Tensor, " n"] | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Scale and shift with the least weighted sum of |scale * source + shift - target|.

    Args:
        source: finite values, any dtype; sums are float64.
        target: finite values.
        weight: >= 0; zero drops a sample. None weighs all alike.
    Returns:
        scale and shift, float64. The objective is the minimum to rounding.
    Raises:
        DegenerateInput: fewer than two samples with weight, or all of them have the same source value.
        ValueError: a sample is not finite.
    Source: replaces the 5,000 Adam steps of Geo4D's released evaluation by the optimum they approach.
    """
    if weight is not None:
        used = weight > 0
        source, target, weight = source[used], target[used], weight[used].double()
    if source.numel() < 2:
        raise DegenerateInput("fewer than two samples")
    if not bool(torch.isfinite(source).all() & torch.isfinite(target).all()):
        raise ValueError("expected finite source and target, got NaN or infinity; drop those samples first")
    if bool((source == source[0]).all()):
        raise DegenerateInput("all predicted values are equal")

    generator = torch.Generator(device=source.device).manual_seed(0)
    estimate: Tensor | None = None
    centre = source.double().mean()
    spread = (source.double() - centre).abs().mean()
    width = torch.zeros((), dtype=torch.float64, device=source.device)
    for size in (*_LEVEL_SIZES, source.numel()):
        if size > source.numel():
            continue
        if size == source.numel():
            level_x, level_y, level_w = source, target, weight
        else:
            pick = torch.randint(source.numel(), (size,), generator=generator, device=source.device)
            level_x, level_y = source[pick], target[pick]
            level_w = None if weight is None else weight[pick]
            if bool((level_x == level_x[0]).all()):
                continue
        if estimate is None:
            estimate, width = _start(level_x, level_y, level_w, centre, spread)
        estimate, width = _solve_level(level_x, level_y, level_w, centre, spread, estimate, width)
    assert estimate is not None
    scale = estimate[0] / spread
    return scale, estimate[1] - scale * centre


def _start(
    x: Tensor, y: Tensor, weight: Tensor | None, centre: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """Least squares, and a generous half width of the neighbourhood: the range of its residuals."""
    u, y = (x.double() - centre) / spread, y.double()
    w = torch.ones_like(u) if weight is None else weight
    total = w.sum()
    u_mean, y_mean = (w * u).sum() / total, (w * y).sum() / total
    variance = (w * (u - u_mean) ** 2).sum()
    slope = (w * (u - u_mean) * (y - y_mean)).sum() / variance if variance > 0 else torch.zeros_like(u_mean)
    estimate = torch.stack([slope, y_mean - slope * u_mean])
    residual = (y - estimate[0] * u - estimate[1]).abs()
    return estimate, residual.mean() + 1e-9 * y.abs().mean()


def _solve_level(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    centre: Tensor,
    spread: Tensor,
    estimate: Tensor,
    width: Tensor,
) -> tuple[Tensor, Tensor]:
    """Optimum over one set of samples, and the half width in which the optimum of a larger set is expected."""
    while True:
        undecided_u, undecided_y, undecided_w, slope_term, shift_term = _decide(
            x, y, weight, centre, spread, estimate, width
        )
        result = _solve_undecided(
            undecided_u, undecided_y, undecided_w, slope_term, shift_term, estimate, width
        )
        # The linear terms bound the objective from below everywhere and are exact inside the neighbourhood, so an
        # optimum inside is the optimum.
        if result is not None and bool(((result - estimate).abs() < width).all()):
            break
        if result is not None:
            estimate = result
        width = 4 * width
    residual = (y.double() - result[0] * (x.double() - centre) / spread - result[1]).abs()
    # P(|r| < q) = 2 f(0) q gives the density at 0, and with it the standard error 1 / (2 f(0) sqrt(n)).
    tenth = _rank(residual, max(1, residual.numel() // 10))
    floor = 1e-9 * (y.double().abs().mean() + result.abs().max())
    return result, 6 * tenth / 0.1 / math.sqrt(residual.numel()) + floor


def _decide(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    centre: Tensor,
    spread: Tensor,
    estimate: Tensor,
    width: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, float, float]:
    """Samples whose sign is open inside the neighbourhood, and the linear term (slope, shift) of all others."""
    us, ys, ws = [], [], []
    slope_term = shift_term = 0.0
    for start in range(0, x.numel(), _CHUNK):
        u = (x[start : start + _CHUNK].double() - centre) / spread
        part_y = y[start : start + _CHUNK].double()
        residual = part_y - estimate[0] * u - estimate[1]
        open_ = residual.abs() <= width * (u.abs() + 1)
        sign = torch.where(open_, 0.0, residual.sign())
        if weight is not None:
            part_w = weight[start : start + _CHUNK]
            sign = sign * part_w
            ws.append(part_w[open_])
        slope_term -= float(sign @ u)
        shift_term -= float(sign.sum())
        us.append(u[open_])
        ys.append(part_y[open_])
    return torch.cat(us), torch.cat(ys), torch.cat(ws) if ws else None, slope_term, shift_term


def _solve_undecided(
    u: Tensor,
    y: Tensor,
    weight: Tensor | None,
    slope_term: float,
    shift_term: float,
    estimate: Tensor,
    width: Tensor,
) -> Tensor | None:
    """Minimum over slopes near the estimate and all shifts; None if too few samples are open to hold the shift."""
    if u.numel() == 0:
        return None
    total = float(u.numel()) if weight is None else float(weight.sum())
    below = 0.5 * (total - shift_term)
    if not 0 < below < total:
        return None

    def best_shift(slope: Tensor) -> Tensor:
        level = y - slope * u
        if weight is None:
            return _rank(level, min(max(math.ceil(below), 1), level.numel()))
        return _weighted_rank(level, weight, below)

    def value(slope: Tensor, shift: Tensor) -> float:
        residual = (y - slope * u - shift).abs()
        loss = residual.sum() if weight is None else residual @ weight
        return float(loss + slope_term * slope + shift_term * shift)

    def reduced(slope: Tensor) -> float:
        return value(slope, best_shift(slope))

    low, high = estimate[0] - 2 * width, estimate[0] + 2 * width
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_value, right_value = reduced(left), reduced(right)
    for _ in range(40):
        if left_value <= right_value:
            high, right, right_value = right, left, left_value
            left = high - _GOLDEN * (high - low)
            left_value = reduced(left)
        else:
            low, left, left_value = left, right, right_value
            right = low + _GOLDEN * (high - low)
            right_value = reduced(right)
    slope = 0.5 * (low + high)
    shift = best_shift(slope)
    best, best_value = torch.stack([slope, shift]), value(slope, shift)
    # The optimum is a line through two samples: turn the line about a sample that it passes, while that pays.
    for _ in range(10):
        pivot = (y - best[0] * u - best[1]).abs().argmin()
        away = u - u[pivot]
        other = away != 0
        pull = away[other].abs() if weight is None else away[other].abs() * weight[other]
        if pull.numel() == 0:
            break
        # Through the pivot, shift = y_p - slope * u_p, so the linear term becomes (slope_term - shift_term * u_p).
        share = 0.5 * (float(pull.sum()) - (slope_term - shift_term * float(u[pivot])))
        if not 0 < share < float(pull.sum()):
            break
        slope = _weighted_rank((y[other] - y[pivot]) / away[other], pull, share)
        shift = y[pivot] - slope * u[pivot]
        turned = value(slope, shift)
        if not turned < best_value:
            break
        best, best_value = torch.stack([slope, shift]), turned
    return best


def _rank(values: Tensor, rank: int) -> Tensor:
    """The ``rank``-th smallest value, counted from 1."""
    if values.device.type == "cpu":
        # numpy's partition is some twenty times faster than torch.kthvalue on a CPU.
        return torch.as_tensor(np.partition(values.numpy(), rank - 1)[rank - 1], dtype=values.dtype)
    return values.kthvalue(rank).values


def _weighted_rank(values: Tensor, weight: Tensor, below: float) -> Tensor:
    """The smallest value at which the weights of it and all smaller ones reach ``below``."""
    ordered, order = values.sort()
    reached = torch.searchsorted(weight[order].cumsum(0), torch.tensor([below], dtype=weight.dtype))
    return ordered[int(reached.clamp(max=ordered.numel() - 1))]
