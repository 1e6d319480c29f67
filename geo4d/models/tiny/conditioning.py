"""Evidence from motion (cameras from tracks, plane-sweep points) -> the channels that the network reads.

The scale of the evidence is unknown and differs from the scale of the answer, so everything is made relative to the
evidence itself: disparity to its own top and median, camera positions to its own median depth. Trust multiplies the
channels, so "no evidence" and "evidence nobody trusts" are the same input: zeros, which training shows often.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.geometry.cameras import resize_intrinsics
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.models.tiny.config import BLOCK
from geo4d.models.tiny.modalities import relative_to_first
from geo4d.models.tiny.network import Evidence
from geo4d.types import EvidenceMaps

MIN_SHARE = 0.02
"""Share of confident pixels in a window below which the depth evidence is not used at all."""
USABLE = 0.15
"""Confidence from which a pixel helps to find the scales."""
MAX_MOMENT = 4.0


def no_evidence(batch: int, num_frames: int, size: tuple[int, int], like: Tensor) -> Evidence:
    """Evidence that says nothing, for pictures of ``size``."""
    height, width = size
    return Evidence(
        like.new_zeros(batch, num_frames, 3, height // 2, width // 2),
        like.new_zeros(batch, num_frames, 8, height // BLOCK, width // BLOCK),
    )


def encode_window(evidence: EvidenceMaps, size: tuple[int, int]) -> Evidence:
    """Evidence of one window (batch of one) for pictures of ``size``.

    Args:
        evidence: at any size.
        size: (height, width) of the network's pictures, multiples of 16.
    """
    depth = evidence.points[..., 2]
    confidence = torch.ones_like(depth) if evidence.confidence is None else evidence.confidence
    confidence = torch.where(evidence.mask & (depth > 0), confidence, 0.0)
    disparity = torch.where(confidence > 0, 1 / depth.clamp(min=1e-9), 0.0)
    c2w = intrinsics = trust = None
    if evidence.c2w is not None and evidence.intrinsics is not None:
        c2w = evidence.c2w[None].float()
        intrinsics = resize_intrinsics(evidence.intrinsics.float(), (depth.shape[1], depth.shape[2]), size)[
            None
        ]
        trust = (
            torch.ones_like(depth[:, 0, 0])
            if evidence.camera_confidence is None
            else evidence.camera_confidence
        )
        trust = trust[None].float()
    encoded = encode_evidence(disparity[None].float(), confidence[None].float(), size, intrinsics, c2w, trust)
    if evidence.moving is not None:
        moving = F.interpolate(evidence.moving[:, None].float(), encoded.depth.shape[-2:], mode="area")
        encoded = replace(encoded, moving=moving[None, :, 0])
    if evidence.log_depth_spread is None:
        return encoded
    used = confidence > 0
    error = torch.where(used, evidence.log_depth_spread * confidence, 0.0).flatten(1).sum(1)
    return replace(encoded, error=(error / confidence.flatten(1).sum(1).clamp(min=1e-9))[None].float())


def encode_evidence(
    disparity: Float[Tensor, "B T h0 w0"],
    confidence: Float[Tensor, "B T h0 w0"],
    size: tuple[int, int],
    intrinsics: Float[Tensor, "B T 3 3"] | None = None,
    c2w: Float[Tensor, "B T 4 4"] | None = None,
    camera_confidence: Float[Tensor, "B T"] | None = None,
) -> Evidence:
    """Channels of a batch of windows.

    Args:
        disparity: of the sweep, any unit, shared by the frames of a window.
        confidence: in [0, 1]; 0 where there is none.
        size: (height, width) of the network's pictures.
        intrinsics: pixels of a picture of ``size``.
        c2w: camera to any world of the window, in the unit of 1 / ``disparity``.
        camera_confidence: in [0, 1].
    """
    batch, num_frames = disparity.shape[:2]
    usable = confidence > USABLE
    enough = usable.flatten(1).float().mean(1) >= MIN_SHARE
    median, top = _quantiles(disparity, usable, (0.5, 0.95))
    confidence = confidence * enough[:, None, None, None]
    weight = confidence + 1e-6 * (confidence > 0)
    linear = (disparity / top[:, None, None, None]).clamp(max=1.5) * 2 - 1
    logarithm = (disparity / median[:, None, None, None]).clamp(0.02, 50.0).log() / 2
    half = (size[0] // 2, size[1] // 2)
    stacked = torch.stack([linear * weight, logarithm * weight, confidence], dim=2).flatten(0, 1)
    stacked = F.interpolate(stacked, half, mode="area")
    averaged = stacked[:, 2:].clamp(min=1e-4)
    seen = stacked[:, 2:] > 1e-3
    depth = torch.cat([(stacked[:, :2] / averaged).clamp(-2, 2) * seen, stacked[:, 2:]], dim=1)
    depth = depth.unflatten(0, (batch, num_frames))

    cells = (size[0] // BLOCK, size[1] // BLOCK)
    cameras = disparity.new_zeros(batch, num_frames, 8, *cells)
    if intrinsics is not None and c2w is not None and camera_confidence is not None:
        relative = relative_to_first(c2w).clone()
        relative[..., :3, 3] *= median[:, None, None]
        rays = cameras_to_ray_map(resize_intrinsics(intrinsics, size, cells), relative, cells)
        rays = rays.movedim(-1, 2)
        rotation_trust = camera_confidence[:, :, None, None, None].expand(-1, -1, 1, *cells)
        position_trust = rotation_trust * enough[:, None, None, None, None]
        cameras = torch.cat(
            [
                rays[:, :, :3] * rotation_trust,
                rays[:, :, 3:].clamp(-MAX_MOMENT, MAX_MOMENT) * position_trust,
                rotation_trust,
                position_trust,
            ],
            dim=2,
        )
    return Evidence(depth, cameras)


def _quantiles(
    values: Float[Tensor, "B T h w"], usable: Tensor, shares: Sequence[float]
) -> list[Float[Tensor, " B"]]:
    """Quantiles of the usable values of each window; 1 where there are none."""
    flat = torch.where(usable, values, torch.inf).flatten(1)
    if flat.device.type == "cpu":  # numpy's sort of numbers alone takes a quarter of the time
        ordered = torch.from_numpy(np.sort(flat.numpy(), axis=1))
    else:
        ordered = flat.sort(dim=1).values
    count = usable.flatten(1).sum(1)

    def at(share: float) -> Float[Tensor, " B"]:
        index = (share * (count - 1)).long().clamp(min=0)
        found = ordered.gather(1, index[:, None])[:, 0]
        return torch.where(count > 0, found, 1.0).clamp(min=1e-9)

    return [at(share) for share in shares]
