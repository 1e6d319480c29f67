"""Which pixels move: where the hypothesis of a static world fails between frames.

Two cues, each a pure function of two frames: a static point can be hidden in another view, but never seen through
(free space), and its image moves as the cameras say (flow against rigid flow).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.cameras import pixel_grid, project, unproject
from geo4d.geometry.poses import relative, transform

FAR_SHARE = 0.98
"""Share of the finite depths of a frame that lie nearer than what stands in for the sky."""


def rigid_flow(
    depth: Float[Tensor, "H W"],
    intrinsics: Float[Tensor, "3 3"],
    c2w: Float[Tensor, "4 4"],
    other_intrinsics: Float[Tensor, "3 3"],
    other_c2w: Float[Tensor, "4 4"],
) -> tuple[Float[Tensor, "H W 2"], Float[Tensor, "H W"]]:
    """Where the pixels of a static scene go in another frame.

    Returns:
        displacement in pixels and z-depth in the other camera; NaN where the depth is not finite or the point falls
        behind that camera.
    """
    height, width = depth.shape
    points = unproject(torch.where(torch.isfinite(depth), depth, torch.nan), intrinsics).reshape(-1, 3)
    moved = transform(relative(other_c2w, c2w).to(depth), points)
    pixels, z = project(moved, other_intrinsics)
    in_front = z > 1e-6
    pixels = torch.where(in_front[:, None], pixels, torch.nan).reshape(height, width, 2)
    flow = pixels - pixel_grid((height, width), device=depth.device, dtype=depth.dtype)
    return flow, torch.where(in_front, z, torch.nan).reshape(height, width)


def seen_through(
    depth: Float[Tensor, "H W"],
    flow: Float[Tensor, "H W 2"],
    z: Float[Tensor, "H W"],
    other_depth: Float[Tensor, "h w"],
) -> Float[Tensor, "H W"]:
    """How far the other frame sees past a point, relative to the point's depth there.

    The nearest of the four pixels around the landing place counts, so that edges do not alarm. Positive where the
    static point would have to be transparent; NaN where it leaves the image or nothing is known. Sky counts as the far
    end of what the other frame sees: a hill that is taken for sky once has not moved, a bird in front of it has.
    """
    height, width = other_depth.shape
    place = flow + pixel_grid((depth.shape[0], depth.shape[1]), device=depth.device, dtype=depth.dtype) - 0.5
    inside = (
        (place[..., 0] >= 0)
        & (place[..., 0] <= width - 1)
        & (place[..., 1] >= 0)
        & (place[..., 1] <= height - 1)
    )
    corner = torch.where(inside[..., None], place, 0.0).floor().long()
    x, y = (
        corner[..., 0].clamp(max=width - 2 if width > 1 else 0),
        corner[..., 1].clamp(max=height - 2 if height > 1 else 0),
    )
    finite = other_depth[torch.isfinite(other_depth)]
    far = torch.quantile(finite.float(), FAR_SHARE).to(z) if finite.numel() else torch.tensor(torch.nan).to(z)
    known = torch.where(torch.isposinf(other_depth), far, other_depth).nan_to_num(nan=-torch.inf)
    nearest = torch.full_like(z, torch.inf)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = (x + dx).clamp(max=width - 1), (y + dy).clamp(max=height - 1)
            nearest = torch.minimum(nearest, known[row, column])
    excess = (nearest - z) / z
    return torch.where(inside & (nearest > 0), excess, torch.nan)


def noise_of(excess: Float[Tensor, "H W"]) -> float:
    """Standard deviation of the static pixels' excess, from the median size; 0 where nothing is known."""
    values = excess[torch.isfinite(excess)].abs()
    return 1.4826 * float(values.median()) if values.numel() else 0.0


def free_space_probability(
    excess: Sequence[Float[Tensor, "H W"]], *, min_excess: float = 0.04, width: float = 0.25
) -> Float[Tensor, "H W"]:
    """Probability that a pixel moves, from what other frames see past it.

    Args:
        min_excess: relative excess that noise-free static pixels never reach.
        width: softness of the step, in units of its place.
    """
    result = torch.zeros_like(excess[0])
    for values in excess:
        limit = min_excess + 4 * noise_of(values)
        step = torch.sigmoid((values / limit - 1) / width)
        result = torch.maximum(result, step.nan_to_num(nan=0.0))
    return result


def flow_probability(
    flow: Float[Tensor, "H W 2"],
    rigid: Float[Tensor, "H W 2"],
    *,
    min_pixels: float = 0.5,
    width: float = 0.25,
) -> Float[Tensor, "H W"]:
    """Probability that a pixel moves, from observed flow against the flow of a static world.

    Args:
        min_pixels: difference that good flow stays below.
    """
    difference = (flow - rigid).norm(dim=-1)
    known = difference[torch.isfinite(difference)]
    limit = min_pixels + 4 * (float(known.median()) if known.numel() else 0.0)
    return torch.sigmoid((difference / limit - 1) / width).nan_to_num(nan=0.0)
