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
    focals, shifts = points.new_ones(num), points.new_zeros(num)
    for b in range(num):
        keep = usable[b]
        known = None if focal is None else float(focal[b])
        if int(keep.sum()) < MIN_POINTS:
            focals[b] = 1.0 if known is None else known
            continue
        solve = _solve_published if solver == "published" else _solve
        focals[b], shifts[b] = solve(samples[b][keep], target[keep], known)
    return focals, shifts


def _residual(
    shift: Tensor, points: Float[Tensor, "n 3"], target: Float[Tensor, "n 2"], focal: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals, their derivative by the shift, and the focal length used."""
    depth = points[:, 2:] + shift
    slope = points[:, :2] / depth
    slope_by_shift = -slope / depth
    square = slope.square().sum().clamp(min=1e-30)
    if focal is None:
        product = (slope * target).sum()
        best = product / square
        best_by_shift = ((slope_by_shift * target).sum() - 2 * best * (slope * slope_by_shift).sum()) / square
    else:
        best, best_by_shift = torch.as_tensor(focal).to(slope), torch.zeros_like(square)
    residual = best * slope - target
    return residual, best_by_shift * slope + best * slope_by_shift, best


def _solve(
    points: Float[Tensor, "n 3"], target: Float[Tensor, "n 2"], focal: float | None
) -> tuple[Tensor, Tensor]:
    # Every depth must stay positive after the shift, else the residual has a pole between two solutions. Points
    # that lie behind the camera from the start (a shifted prior) begin just in front of it.
    nearest = points[:, 2].min()
    span = (points[:, 2].max() - nearest).clamp(min=1e-6 * points[:, 2].abs().max().clamp(min=1e-30))
    lowest = -nearest + 1e-4 * span
    shift = torch.maximum(torch.zeros_like(lowest), lowest)
    damping = 1e-3
    residual, jacobian, best = _residual(shift, points, target, focal)
    cost = residual.square().sum()
    for _ in range(100):
        gradient = (jacobian * residual).sum()
        curvature = jacobian.square().sum()
        if curvature <= 0:
            break
        step = -gradient / (curvature * (1 + damping))
        proposal = torch.maximum(shift + step, (shift + lowest) / 2)
        new_residual, new_jacobian, new_best = _residual(proposal, points, target, focal)
        new_cost = new_residual.square().sum()
        if new_cost <= cost:
            moved = (proposal - shift).abs()
            shift, residual, jacobian, best, cost = proposal, new_residual, new_jacobian, new_best, new_cost
            damping = max(damping / 10, 1e-12)
            if moved <= 1e-10 * (span + shift.abs()):
                break
        else:
            damping *= 10
            if damping > 1e12:
                break
    return best, shift


def _solve_published(
    points: Float[Tensor, "n 3"], target: Float[Tensor, "n 2"], focal: float | None
) -> tuple[Tensor, Tensor]:
    from scipy.optimize import least_squares

    xy, z = points[:, :2].float().cpu().numpy(), points[:, 2].float().cpu().numpy()
    uv = target.float().cpu().numpy()

    def best_focal(slope: np.ndarray) -> float:
        return float((slope * uv).sum() / np.square(slope).sum()) if focal is None else focal

    def residual(shift: np.ndarray) -> np.ndarray:
        slope = xy / (z + shift)[:, None]  # float32 data, float64 arithmetic
        return (best_focal(slope) * slope - uv).ravel()

    solution = least_squares(residual, x0=np.zeros(1), ftol=1e-3, method="lm")
    shift = solution.x.astype(np.float32)
    return torch.tensor(best_focal(xy / (z + shift)[:, None])), torch.tensor(float(shift[0]))
