"""Predicted maps of one frame at the size of the reference."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geo4d.evaluation.predicted import Predicted


def frame_values(predicted: Predicted, row: dict[int, int], frame: int, size: tuple[int, int]) -> Tensor:
    """One predicted map at the size of the reference, NaN where missing."""
    if frame not in row or predicted.maps is None:
        return torch.full(size, torch.nan)
    values = torch.from_numpy(np.array(predicted.maps[row[frame]], np.float32))
    known = torch.isfinite(values)
    if predicted.scale_kind != "affine":
        known = known & (values > 0 if predicted.quantity == "depth" else values >= 0)
    if not bool(known.any()):
        return torch.full(size, torch.nan)
    resized = resize_map(torch.where(known, values, torch.nan), size)
    if predicted.scale_kind == "affine":
        return resized
    # Bicubic weights overshoot at steps; what they push below zero is still a prediction.
    return torch.where(resized <= 0, values[known].min(), resized)


def resize_map(values: Float[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "H W"]:
    """Bicubic to ``size`` (with anti-aliasing downwards); near missing values the mean of what is there, else NaN."""
    if tuple(values.shape) == size:
        return values
    known = torch.isfinite(values)

    def resize(array: Tensor, mode: str) -> Tensor:
        return F.interpolate(array[None, None], size=size, mode=mode, align_corners=False, antialias=True)[
            0, 0
        ]

    if bool(known.all()):
        return resize(values, "bicubic")
    share = resize(known.float(), "bilinear")
    filled = torch.where(known, values, 0.0)
    smooth = resize(filled, "bilinear") / share.clamp(min=1e-6)
    whole = (share > 1 - 1e-6) & (resize(known.float(), "bicubic") > 1 - 1e-4)
    sharp = resize(torch.where(known, values, values[known].mean() if bool(known.any()) else 0.0), "bicubic")
    return torch.where(share > 0.5, torch.where(whole, sharp, smooth), torch.nan)


def frame_depth(predicted: Predicted, row: dict[int, int], frame: int, size: tuple[int, int]) -> Tensor:
    """Depth at the size of the reference, no alignment; NaN where there is no finite, positive one."""
    values = frame_values(predicted, row, frame, size)
    values = torch.where(values > 0, values, torch.nan)
    return 1 / values if predicted.quantity == "disparity" else values


def spread(values: np.ndarray, row: dict[int, int], num_frames: int) -> np.ndarray:
    """Per-frame arrays laid on all frames of the sequence, NaN where there is no prediction."""
    result = np.full((num_frames, *values.shape[1:]), np.nan)
    for frame, index in row.items():
        result[frame] = values[index]
    return result
