"""Pictures to camera-frame points: sizing, the network, focal and shift, and the way back to the source size."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.models.moge.config import MoGeConfig, MoGeOptions
from geo4d.models.moge.metric_model import MoGe2
from geo4d.models.moge.model import MoGe, remap_exp
from geo4d.models.moge.recover import recover_focal_shift

MASK_THRESHOLD = 0.5
TOP_LEVEL = 9
TOKEN_AREA = 14**2


@dataclass(frozen=True)
class MoGeMaps:
    """What MoGe says about pictures, at their own size.

    Attributes:
        points: in the camera frame, one unknown scale per picture; finite everywhere.
        depth: z-depth belonging to ``points``.
        mask: True where a surface is seen.
        intrinsics: pixels of the maps.
    """

    points: Float[Tensor, "T H W 3"]
    depth: Float[Tensor, "T H W"]
    mask: Bool[Tensor, "T H W"]
    intrinsics: Float[Tensor, "T 3 3"]


def image_size(source_size: tuple[int, int], config: MoGeConfig, options: MoGeOptions) -> tuple[int, int]:
    """(height, width) of the network's image for pictures of ``source_size``.

    The area depends on the resolution level alone. Very narrow pictures would round to nothing; a side never drops
    below one patch.
    """
    height, width = source_size
    low, high = config.trained_area_range
    share = options.resolution_level / TOP_LEVEL
    if options.behaviour == "newest":
        low_tokens, high_tokens = int(low / TOKEN_AREA), int(high / TOKEN_AREA)
        area = float(int(low_tokens + share * (high_tokens - low_tokens)) * TOKEN_AREA)
    else:
        area = low + (high - low) * share
    factor = math.sqrt(area / (height * width))
    if factor == 1:
        return source_size
    return max(14, int(height * factor)), max(14, int(width * factor))


def focal_from_fov(fov_x_deg: float, aspect: float) -> float:
    """Focal length relative to half the diagonal, for a horizontal field of view in degrees."""
    return aspect / math.sqrt(1 + aspect**2) / math.tan(math.radians(fov_x_deg / 2))


def focal_to_intrinsics(focal: Float[Tensor, " T"], size: tuple[int, int]) -> Float[Tensor, "T 3 3"]:
    """Intrinsics in pixels of ``size``, square pixels, centre in the middle."""
    height, width = size
    half_diagonal = math.hypot(height, width) / 2
    intrinsics = torch.zeros(len(focal), 3, 3, dtype=focal.dtype, device=focal.device)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal * half_diagonal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
    return intrinsics


def pixel_rays(focal: Float[Tensor, " T"], aspect: float, size: tuple[int, int]) -> Float[Tensor, "T H W 2"]:
    """x / z and y / z of pixel centres of a grid that covers a picture of ``aspect`` (width over height)."""
    height, width = size
    diagonal = math.sqrt(1 + aspect**2)
    u = ((torch.arange(width, device=focal.device) + 0.5) / width - 0.5) * 2 * aspect / diagonal
    v = ((torch.arange(height, device=focal.device) + 0.5) / height - 0.5) * 2 / diagonal
    v_grid, u_grid = torch.meshgrid(v, u, indexing="ij")
    return torch.stack([u_grid, v_grid], dim=-1) / focal[:, None, None, None]


@torch.no_grad()
def infer_moge(network: MoGe, rgb: Float[Tensor, "T H W 3"], options: MoGeOptions) -> MoGeMaps:
    """Points, depth, mask and intrinsics of pictures, ``options.batch`` at a time.

    A picture in which the mask keeps fewer than two samples has no focal length to recover: it gets focal 1 (relative
    to half the diagonal), shift 0, and its mask says that nothing may be used.

    Args:
        rgb: in [0, 1].
    """
    parts = [_infer_batch(network, batch, options) for batch in rgb.split(options.batch)]
    return MoGeMaps(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))


def _infer_batch(network: MoGe, rgb: Tensor, options: MoGeOptions) -> MoGeMaps:
    image = rgb.movedim(-1, 1).float().to(network.image_mean.device)
    source_size = (int(image.shape[-2]), int(image.shape[-1]))
    size = image_size(source_size, network.config, options)
    if size != source_size:
        image = F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True)
    raw, mask = network.raw(image)
    if options.behaviour == "newest":
        raw, mask = _resize(raw, source_size), _resize(mask[:, None], source_size)[:, 0]
    points = remap_exp(raw)
    aspect = source_size[1] / source_size[0]
    known = None
    if options.fov_x_deg is not None:
        known = points.new_full((len(points),), focal_from_fov(options.fov_x_deg, aspect))
    focal, shift = recover_focal_shift(points, mask > MASK_THRESHOLD, known, options.solver)
    depth = points[..., 2] + shift[:, None, None]
    if options.force_projection:
        height, width = depth.shape[1:]
        xy = pixel_rays(focal, aspect, (height, width)) * depth[..., None]
    else:
        xy = points[..., :2]
    maps = torch.cat([xy, depth[..., None]], dim=-1).movedim(-1, 1)
    maps = _resize(maps, source_size)
    mask = _resize(mask[:, None], source_size)[:, 0]
    return MoGeMaps(
        points=maps.movedim(1, -1),
        depth=maps[:, 2],
        mask=mask > MASK_THRESHOLD,
        intrinsics=focal_to_intrinsics(focal, source_size),
    )


@torch.no_grad()
def infer_moge2(network: MoGe2, rgb: Float[Tensor, "T H W 3"], options: MoGeOptions) -> MoGeMaps:
    """Points and depth in metres, mask and intrinsics of pictures, ``options.batch`` at a time.

    Args:
        rgb: in [0, 1].
        options: ``behaviour`` is MoGe-1's alone.
    """
    parts = [_infer_metric(network, batch, options) for batch in rgb.split(options.batch)]
    return MoGeMaps(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))


def _infer_metric(network: MoGe2, rgb: Tensor, options: MoGeOptions) -> MoGeMaps:
    image = rgb.movedim(-1, 1).float().to(network.encoder.image_mean.device)
    size = (int(image.shape[2]), int(image.shape[3]))
    aspect = size[1] / size[0]
    low, high = network.config.num_tokens_range
    points, surface, metres = network(image, int(low + options.resolution_level / TOP_LEVEL * (high - low)))
    known = None
    if options.fov_x_deg is not None:
        known = points.new_full((len(points),), focal_from_fov(options.fov_x_deg, aspect))
    mask = surface > MASK_THRESHOLD
    focal, shift = recover_focal_shift(points, mask, known, options.solver)
    depth = points[..., 2] + shift[:, None, None]
    mask = mask & (depth > 0)
    xy = points[..., :2]
    if options.force_projection:
        xy = pixel_rays(focal, aspect, size) * depth[..., None]
    points = torch.cat([xy, depth[..., None]], -1) * metres[:, None, None, None]
    return MoGeMaps(points, points[..., 2], mask, focal_to_intrinsics(focal, size))


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
