"""Focal length and depth shift that turn an affine point map into a pinhole view.

Legend of shape letters: B pictures, H W pixels.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.models.moge.model import view_plane

SAMPLES = 64
"""Edge of the grid that the fit looks at."""

Solver = Literal["converged", "published"]

MOST_STEPS, LOOK_EVERY = 100, 10
"""Steps of the iteration, and after how many of them the host asks an accelerator whether all is solved."""

MIN_POINTS = 2
"""Fewer masked samples than this give focal 1 and shift 0."""


def recover_focal_shift(
    points: Float[Tensor, "B H W 3"],
    mask: Bool[Tensor, "B H W"] | None = None,
    focal: Float[Tensor, " B"] | None = None,
    solver: Solver = "converged",
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Minimise |focal * (x, y) / (z + shift) - (u, v)|^2 over focal and shift, each picture by itself.

    For a given shift the best focal length has a closed form, so one unknown remains; a damped Gauss-Newton iteration on
    it (float64, from 0) runs until it no longer moves.

    Args:
        points: up to one z-shift and one scale.
        mask: True where points count; None: everywhere.
        focal: known focal lengths relative to half the diagonal; only the shift is then fitted.
        solver: ``published`` is the authors' MINPACK call in float32, which stops at a relative gain of 1e-3.
    Returns:
        focal relative to half the diagonal of the picture (1 where there are too few points), and shift in the unit of
        ``points`` (0 there).
    """
    num, height, width = points.shape[:3]
    grid = (SAMPLES, SAMPLES)
    plane = view_plane((height, width), width / height, points.device).movedim(-1, 0)[None]
    target = F.interpolate(plane, grid, mode="nearest").flatten(2)[0].T.double()
    samples = (
        F.interpolate(points.movedim(-1, 1).float(), grid, mode="nearest").flatten(2).transpose(1, 2).double()
    )
    usable = torch.isfinite(samples).all(-1)
    if mask is not None:
        usable &= F.interpolate(mask[:, None].float(), grid, mode="nearest").flatten(1) > 0
    if solver == "converged" and points.device.type != "cpu":
        focals, shifts = _solve(samples, target[None], usable, focal)
        return focals.to(points), shifts.to(points)
    focals, shifts = points.new_ones(num), points.new_zeros(num)
    for b in range(num):
        keep = usable[b]
        known = None if focal is None else focal[b : b + 1]
        if int(keep.sum()) < MIN_POINTS:
            focals[b] = 1.0 if known is None else known[0]
        elif solver == "published":
            focals[b], shifts[b] = _solve_published(samples[b][keep], target[keep], known)
        else:
            # Only what is used, so that no sum depends on what lies between.
            found = _solve(samples[b][None, keep], target[None, keep], keep[None, keep], known)
            focals[b], shifts[b] = found[0][0], found[1][0]
    return focals, shifts


def _residual(
    shift: Float[Tensor, " B"],
    points: Float[Tensor, "B n 3"],
    target: Float[Tensor, "B n 2"],
    focal: Float[Tensor, " B"] | None,
) -> tuple[Float[Tensor, "B n 2"], Float[Tensor, "B n 2"], Float[Tensor, " B"]]:
    """Residuals, their derivative by the shift, and the focal length used."""
    depth = points[..., 2:] + shift[:, None, None]
    slope = points[..., :2] / depth
    slope_by_shift = -slope / depth
    square = _total(slope.square()).clamp(min=1e-30)
    if focal is None:
        best = _total(slope * target) / square
        best_by_shift = (_total(slope_by_shift * target) - 2 * best * _total(slope * slope_by_shift)) / square
    else:
        best, best_by_shift = focal.to(slope), torch.zeros_like(square)
    factor, change = best[:, None, None], best_by_shift[:, None, None]
    return factor * slope - target, change * slope + factor * slope_by_shift, best


def _total(values: Float[Tensor, "B n c"]) -> Float[Tensor, " B"]:
    """Sum over each picture; of one picture alone in the order of the whole tensor."""
    return values.sum()[None] if len(values) == 1 else values.flatten(1).sum(1)


def _solve(
    points: Float[Tensor, "B n 3"],
    target: Float[Tensor, "B n 2"] | Float[Tensor, "1 n 2"],
    keep: Bool[Tensor, "B n"],
    focal: Float[Tensor, " B"] | None,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Focal lengths and shifts of pictures that are solved beside each other; a solved one waits for the others."""
    # Points that do not count lie on the axis, at a depth that says nothing: their residual is their target, taken out.
    neutral = points.new_tensor([0.0, 0.0, 1.0])
    enough = keep.sum(1) >= MIN_POINTS
    target = torch.where(keep[..., None], target, 0.0)
    z = points[..., 2]
    nearest = torch.where(keep, z, torch.inf).amin(1)
    farthest = torch.where(keep, z, -torch.inf).amax(1)
    largest = torch.where(keep, z.abs(), 0.0).amax(1)
    nearest, farthest = (torch.where(enough, value, 1.0) for value in (nearest, farthest))
    points = torch.where(keep[..., None], points, neutral * farthest[:, None, None])
    # Every depth must stay positive after the shift, else the residual has a pole between two solutions. Points
    # that lie behind the camera from the start (a shifted prior) begin just in front of it.
    span = torch.maximum(farthest - nearest, 1e-6 * largest.clamp(min=1e-30))
    lowest = -nearest + 1e-4 * span
    shift = torch.maximum(torch.zeros_like(lowest), lowest)
    damping = torch.full_like(shift, 1e-3)
    residual, jacobian, best = _residual(shift, points, target, focal)
    cost, done = _total(residual.square()), ~enough
    for step_number in range(MOST_STEPS):
        gradient, curvature = _total(jacobian * residual), _total(jacobian.square())
        done = done | (curvature <= 0)
        step = -gradient / (curvature * (1 + damping))
        proposal = torch.where(done, shift, torch.maximum(shift + step, (shift + lowest) / 2))
        new_residual, new_jacobian, new_best = _residual(proposal, points, target, focal)
        new_cost = _total(new_residual.square())
        better = ~done & (new_cost <= cost)
        moved = (proposal - shift).abs()
        shift = torch.where(better, proposal, shift)
        chosen = better[:, None, None]
        residual = torch.where(chosen, new_residual, residual)
        jacobian = torch.where(chosen, new_jacobian, jacobian)
        best, cost = torch.where(better, new_best, best), torch.where(better, new_cost, cost)
        damping = torch.where(better, (damping / 10).clamp(min=1e-12), damping * 10)
        done = done | (better & (moved <= 1e-10 * (span + shift.abs()))) | (~better & (damping > 1e12))
        # The host waits for an accelerator only now and then.
        if (shift.device.type == "cpu" or step_number % LOOK_EVERY == LOOK_EVERY - 1) and bool(done.all()):
            break
    alone = best.new_ones(()) if focal is None else focal.to(best)
    return torch.where(enough, best, alone), torch.where(enough, shift, 0.0)


def _solve_published(
    points: Float[Tensor, "n 3"], target: Float[Tensor, "n 2"], known: Float[Tensor, " 1"] | None
) -> tuple[Tensor, Tensor]:
    from scipy.optimize import least_squares

    xy, z = points[:, :2].float().cpu().numpy(), points[:, 2].float().cpu().numpy()
    uv = target.float().cpu().numpy()
    focal = None if known is None else float(known)

    def best_focal(slope: np.ndarray) -> float:
        return float((slope * uv).sum() / np.square(slope).sum()) if focal is None else focal

    def residual(shift: np.ndarray) -> np.ndarray:
        slope = xy / (z + shift)[:, None]  # float32 data, float64 arithmetic
        return (best_focal(slope) * slope - uv).ravel()

    solution = least_squares(residual, x0=np.zeros(1), ftol=1e-3, method="lm")
    shift = solution.x.astype(np.float32)
    return torch.tensor(best_focal(xy / (z + shift)[:, None])), torch.tensor(float(shift[0]))
