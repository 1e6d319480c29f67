"""Normalised maps that the codec sees, and their exact inverse. One window at a time shares its two scales.

- disparity: divided by its 98 % quantile over the window, cut at 1.2, mapped from [0, 1] to [-1, 1]. The sky is 0, so
  the predicted disparity carries a scale but no shift.
- points: in the axes of the window's first camera, divided by the window's median depth, then drawn into the unit ball
  by r / (1 + r); the sky becomes the unit direction of its ray.
- rays: unit direction and moment (origin / median depth) x direction, one ray per 8x8 block, through its centre.

This differs from the released Geo4D normalisation (two quantiles per map; see ``geo4d.models.geo4d.modalities``): with
a bounded point map and a disparity without shift a linear codec is enough, and the sky needs no reserved value.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.cameras import resize_intrinsics, unproject
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.geometry.poses import inverse
from geo4d.models.tiny.config import BLOCK

MAX_DISPARITY = 1.2
MAX_RADIUS = 0.995
"""Where the inverse of the radial map is cut: 199 median depths."""


@dataclass(frozen=True)
class NormalisedMaps:
    """Normalised maps of windows, channel first.

    Attributes:
        disparity: in [-1, 1.4].
        points: inside the unit ball.
        rays: direction, then moment, one per latent cell.
    """

    disparity: Float[Tensor, "*b T 1 H W"]
    points: Float[Tensor, "*b T 3 H W"]
    rays: Float[Tensor, "*b T 6 h w"]


@dataclass(frozen=True)
class WindowScales:
    """What the normalisation of each window divides by.

    Attributes:
        disparity: value that becomes 1, unit of the disparity.
        length: median depth, unit of the points.
    """

    disparity: Float[Tensor, "*b"]
    length: Float[Tensor, "*b"]


def normalise(
    depth: Float[Tensor, "*b T H W"],
    intrinsics: Float[Tensor, "*b T 3 3"],
    c2w: Float[Tensor, "*b T 4 4"],
) -> tuple[NormalisedMaps, WindowScales]:
    """Training targets from true geometry.

    Args:
        depth: z-depth, +inf in the sky; no invalid pixels.
        intrinsics: pixels of ``depth``.
        c2w: camera to any world shared by the window.
    """
    height, width = depth.shape[-2:]
    disparity = 1 / depth
    # Every second pixel is plenty for a quantile.
    some = disparity[..., ::2, ::2].flatten(-3).sort(dim=-1).values
    top = some[..., int(0.98 * (some.shape[-1] - 1))].clamp(min=1e-8)
    num_sky = (some <= 0).sum(-1)
    middle = (num_sky + some.shape[-1]) // 2
    median = some.gather(-1, middle.clamp(max=some.shape[-1] - 1)[..., None])[..., 0].clamp(min=1e-8)
    length = 1 / median

    relative = relative_to_first(c2w)
    relative = torch.cat(
        [
            torch.cat([relative[..., :3, :3], relative[..., :3, 3:] / length[..., None, None, None]], -1),
            relative[..., 3:, :],
        ],
        -2,
    )
    # z = 1e6 median depths stands for the sky: r / (1 + r) is then 1 within rounding.
    scaled = torch.where(torch.isfinite(depth), depth / length[..., None, None, None], 1e6)
    camera = unproject(scaled, intrinsics)
    turned = torch.einsum("...ij,...hwj->...hwi", relative[..., :3, :3], camera)
    points = turned + relative[..., None, None, :3, 3]
    rays = cameras_to_ray_map(
        resize_intrinsics(intrinsics, (height, width), (height // BLOCK, width // BLOCK)),
        relative,
        (height // BLOCK, width // BLOCK),
    )
    maps = NormalisedMaps(
        2 * (disparity / top[..., None, None, None]).clamp(max=MAX_DISPARITY)[..., None, :, :] - 1,
        squash(points).movedim(-1, -3),
        rays.movedim(-1, -3),
    )
    return maps, WindowScales(top, length)


def relative_to_first(c2w: Float[Tensor, "*b T 4 4"]) -> Float[Tensor, "*b T 4 4"]:
    """Cameras in the frame of the first one."""
    return inverse(c2w[..., :1, :, :]) @ c2w


def squash(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Draw space into the unit ball: r -> r / (1 + r)."""
    return points / (1 + points.norm(dim=-1, keepdim=True))


def expand(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Inverse of ``squash``; radii beyond ``MAX_RADIUS`` are cut there."""
    radius = points.norm(dim=-1, keepdim=True)
    points = points * (MAX_RADIUS / radius.clamp(min=MAX_RADIUS))
    return points / (1 - radius.clamp(max=MAX_RADIUS))


def restore_disparity(disparity: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Disparity up to scale, >= 0, from its normalised map."""
    return ((disparity + 1) / 2).clamp(min=0)
