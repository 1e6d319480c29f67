"""sRGB bytes and linear light. Pictures are stored sRGB; glTF colours of points and EXR want linear light."""

import numpy as np
from jaxtyping import Float


def srgb_to_linear(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Linear light in [0, 1] of sRGB values in [0, 1] (clipped). Source: IEC 61966-2-1."""
    value = np.clip(srgb, 0, 1)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(srgb.dtype)


def linear_to_srgb(linear: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """sRGB values in [0, 1] of linear light in [0, 1] (clipped). Source: IEC 61966-2-1."""
    value = np.clip(linear, 0, 1)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055).astype(
        linear.dtype
    )
