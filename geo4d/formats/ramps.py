"""Maps to pixels: colour ramps for depth, confidence and masks; used by previews, reports and viewers."""

import numpy as np
from jaxtyping import Float, UInt8

SKY_COLOUR = (150, 190, 230)
INVALID_COLOUR = (40, 40, 40)


def ramp(values: Float[np.ndarray, "*shape"], name: str = "turbo") -> UInt8[np.ndarray, "*shape 3"]:
    """Colours of values in [0, 1] (clipped; NaN counts as 0).

    Args:
        name: ``turbo`` or ``viridis``.
    Raises:
        ValueError: unknown ramp.
    """
    import cv2

    maps = {"turbo": cv2.COLORMAP_TURBO, "viridis": cv2.COLORMAP_VIRIDIS}
    if name not in maps:
        raise ValueError(f"expected one of {', '.join(maps)} as the colour ramp, got {name!r}")
    levels = np.round(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels.reshape(-1, 1), maps[name])[:, 0, ::-1]
    return np.ascontiguousarray(colours).reshape(*values.shape, 3)


def disparity_range(depth: Float[np.ndarray, "*shape"]) -> tuple[float, float]:
    """2 % and 98 % quantiles of disparity over finite depth, for one steady colour scale; (0, 1) if there is none."""
    finite = depth[np.isfinite(depth) & (depth > 0)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.quantile(1 / finite.astype(np.float64), [0.02, 0.98])
    return float(low), float(max(high, low * (1 + 1e-6) + 1e-12))


def depth_to_colours(
    depth: Float[np.ndarray, "H W"], limits: tuple[float, float] | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Depth as colours of disparity: near is red, far is blue, sky light blue, invalid dark grey.

    Args:
        limits: disparity that gets the far and the near end; None takes them from this map.
    """
    low, high = limits or disparity_range(depth)
    finite = np.isfinite(depth) & (depth > 0)
    disparity = 1 / np.where(finite, depth, 1).astype(np.float32)
    colours = ramp((disparity - low) / (high - low))
    colours[~finite] = INVALID_COLOUR
    colours[np.isposinf(depth)] = SKY_COLOUR
    return colours


def confidence_to_colours(confidence: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Confidence in [0, 1]: dark is low, yellow is high."""
    return ramp(confidence, "viridis")


def to_uint8(rgb: Float[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour in [0, 1] to bytes."""
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
