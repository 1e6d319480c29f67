"""Which frames of a clip to use, and how to vary them: strides, mirroring, quarter turns, colours."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def choose_frames(
    num_frames: int, count: int, strides: Sequence[int], rng: np.random.Generator, *, reverse: float = 0.5
) -> Int[Tensor, " count"]:
    """Frames of one training window: evenly spaced, at a random place, sometimes backwards in time.

    Args:
        num_frames: length of the clip.
        count: frames wanted.
        strides: frame distances to draw from; those that do not fit the clip are left out.
        rng: source of randomness.
        reverse: probability of playing the window backwards.
    Raises:
        ValueError: no stride fits.
    """
    fitting = [stride for stride in strides if (count - 1) * stride < num_frames]
    if not fitting:
        raise ValueError(
            f"expected a clip of more than {(count - 1) * min(strides)} frames, got {num_frames}"
        )
    stride = fitting[int(rng.integers(len(fitting)))]
    start = int(rng.integers(num_frames - (count - 1) * stride))
    frames = torch.arange(count) * stride + start
    return frames.flip(0) if rng.random() < reverse else frames


def draw_mixture(ratios: Sequence[float], index: int, seed: int) -> int:
    """Which of several sources sample ``index`` comes from; a function of its arguments alone.

    Args:
        ratios: weights >= 0 of the sources.
    Raises:
        ValueError: no positive weight, or a negative one.
    """
    weights = np.asarray(ratios, np.float64)
    if weights.ndim != 1 or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError(f"expected weights >= 0 with a positive sum, got {list(ratios)}")
    draw = np.random.default_rng((seed, 29, index)).random()
    return min(int(np.searchsorted(np.cumsum(weights) / weights.sum(), draw, side="right")), len(weights) - 1)


def vary_colours(rgb: Float[Tensor, "T 3 H W"], rng: np.random.Generator) -> Float[Tensor, "T 3 H W"]:
    """Other exposure, tone curve, white balance, saturation, and now and then swapped channels or sensor noise.

    Args:
        rgb: in [0, 1].
    """
    gamma = float(np.exp(rng.normal(0, 0.25)))
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.1, 3) + rng.normal(0, 0.15))).to(rgb)[:, None, None]
    offset = float(rng.normal(0, 0.03))
    saturation = float(rng.uniform(0.3, 1.4))
    if rng.random() < 0.2:
        rgb = rgb[:, rng.permutation(3).tolist()]
    if rng.random() < 0.1:
        saturation = 0.0
    rgb = rgb.clamp(min=1e-4) ** gamma * gain + offset
    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * saturation
    if rng.random() < 0.3:
        noise = torch.Generator(rgb.device).manual_seed(int(rng.integers(1 << 62)))
        drawn = torch.randn(rgb.shape, generator=noise, device=rgb.device)
        rgb = rgb + float(rng.uniform(0, 0.04)) * drawn
    return rgb.clamp(0, 1)


def mirror_cameras(
    intrinsics: Float[Tensor, "*b 3 3"], c2w: Float[Tensor, "*b 4 4"], width: int
) -> tuple[Float[Tensor, "*b 3 3"], Float[Tensor, "*b 4 4"]]:
    """Cameras of the world seen in a mirror (x -> -x), whose pictures are those of the true one flipped left to right.

    Args:
        intrinsics: pixels, without skew.
        c2w: camera to world.
        width: of the pictures, pixels.
    """
    mirrored = intrinsics.clone()
    mirrored[..., 0, 2] = width - intrinsics[..., 0, 2]
    sign = torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=c2w.dtype, device=c2w.device)
    return mirrored, c2w * sign[:, None] * sign


def turn_cameras(
    intrinsics: Float[Tensor, "*b 3 3"], c2w: Float[Tensor, "*b 4 4"], size: tuple[int, int], turns: int
) -> tuple[Float[Tensor, "*b 3 3"], Float[Tensor, "*b 4 4"]]:
    """Cameras rolled about their viewing axis, so that they take the pictures turned by ``torch.rot90(turns)``.

    Args:
        intrinsics: pixels, without skew.
        c2w: camera to world.
        size: (height, width) of the pictures before the turn, pixels.
        turns: quarter turns against the clock, as seen in the picture.
    """
    height, width = size
    # Pixels (x, y) of the old camera -> (y, width - x) of the new one; its axes are x' = y, y' = -x.
    roll = torch.eye(4, dtype=c2w.dtype, device=c2w.device)
    roll[:2, :2] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    for _ in range(turns % 4):
        turned = intrinsics.clone()
        turned[..., 0, 0], turned[..., 1, 1] = intrinsics[..., 1, 1], intrinsics[..., 0, 0]
        turned[..., 0, 2], turned[..., 1, 2] = intrinsics[..., 1, 2], width - intrinsics[..., 0, 2]
        intrinsics, c2w = turned, c2w @ roll.T
        height, width = width, height
    return intrinsics, c2w
