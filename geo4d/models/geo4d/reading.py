"""Decoded maps of one window -> its prediction."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geo4d.models.geo4d import modalities
from geo4d.types import Prediction, Window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedMaps:
    """Decoded, still normalised maps of one window.

    Attributes:
        point_map: three coordinates and the raw uncertainty.
        ray_direction, ray_moment: as decoded; directions are not of unit length. None where the network has no ray maps.
        disparity: mean of the decoded channels; None where the network has none.
    """

    point_map: Float[Tensor, "T H W 4"]
    ray_direction: Float[Tensor, "T H W 3"] | None = None
    ray_moment: Float[Tensor, "T H W 3"] | None = None
    disparity: Float[Tensor, "T H W"] | None = None


def read_maps(
    maps: DecodedMaps, window: Window, *, seed: int, sky_tolerance: float, provenance: Mapping[str, Any]
) -> Prediction:
    """Decoded maps to a prediction, padding removed; what the network does not predict is None there.

    NaN or infinity never gets through: the pixels become invalid, a modality without a mask of its own is left
    out, and ``provenance["not_finite"]`` says what happened, as ``predict.mask_nonfinite`` does.

    Args:
        maps: of at least as many frames as the window has.
        sky_tolerance: see ``modalities.decode_point_map``.
        provenance: what else the prediction says of its origin.
    """
    kept = slice(0, window.num_frames)
    points = modalities.decode_point_map(maps.point_map[kept], sky_tolerance)
    finite = torch.isfinite(maps.point_map[kept]).all(-1)
    disparity = None if maps.disparity is None else modalities.decode_disparity(maps.disparity[kept])
    rays = None
    if maps.ray_direction is not None and maps.ray_moment is not None:
        rays = torch.cat([maps.ray_direction[kept], maps.ray_moment[kept]], dim=-1)
    predicted = {"point_map": maps.point_map[kept], "disparity": disparity, "ray_map": rays}
    bad = {
        name: frames
        for name, values in predicted.items()
        if values is not None and (frames := modalities.frames_with_nonfinite(values).tolist())
    }
    not_finite = {}
    if bad:
        sound = finite if disparity is None else finite & torch.isfinite(disparity)
        share = float((~sound).float().mean())
        cameras = ["ray_map"] if "ray_map" in bad else []
        not_finite = {"not_finite": {"share_of_pixels": share, "cameras": cameras, "frames": bad}}
        log.warning("window %d: NaN or infinity in %s; left out", window.index, ", ".join(bad))
    if "ray_map" in bad:
        rays = None
    return Prediction(
        frame_indices=window.frame_indices,
        times_s=window.times_s,
        window_index=window.index,
        point_map=torch.where(finite[..., None], points.points, 0.0),
        point_frame="window",
        point_scale_kind="scale",
        point_z_offset=None,
        # The spread is predicted for normalised coordinates; decoding halves lengths.
        point_uncertainty=torch.where(finite, points.uncertainty / 2.0, 1e3),
        disparity=None if "disparity" in bad else disparity,
        disparity_scale_kind="affine",
        ray_map=None if rays is None else coarse_rays(rays),
        ray_c2w=None if rays is None else modalities.rays_to_cameras(rays[..., :3], rays[..., 3:]),
        valid=points.valid & finite,
        sky=points.sky & finite,
        seed=seed,
        provenance={**provenance, **not_finite},
    )


def coarse_rays(rays: Float[Tensor, "T H W 6"], factor: int = 8) -> Float[Tensor, "T h w 6"]:
    """Ray map on a coarser grid: means over blocks, directions brought back to unit length."""
    pooled = F.avg_pool2d(rays.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    return torch.cat([F.normalize(pooled[..., :3], dim=-1), pooled[..., 3:]], dim=-1)
