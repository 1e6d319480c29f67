"""Latents to point maps: chunked decoding, resize to the source, and the pinhole that the maps describe.

Legend of shape letters: T frames, c latent channels, h w latent size, H W size of the result.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.models.geometrycrafter.prior_maps import diagonal_grid

MAX_LOG_DEPTH = 10.0

DecodeClip = Callable[[Tensor], Tensor]
"""Latents of one clip [T, c, h, w] to its maps [T, 3, H, W]: theta, log depth, mask."""


@dataclass(frozen=True)
class DecodedMaps:
    """The decoder's maps of consecutive frames.

    Attributes:
        theta: tangent of half the diagonal field of view, per pixel.
        log_depth: log of z-depth.
        mask: positive where valid.
    """

    theta: Float[Tensor, "T H W"]
    log_depth: Float[Tensor, "T H W"]
    mask: Float[Tensor, "T H W"]

    @property
    def valid(self) -> Bool[Tensor, "T H W"]:
        """True where the decoded mask is positive."""
        return self.mask > 0

    @property
    def depth(self) -> Float[Tensor, "T H W"]:
        """z-depth in the video's unknown unit, at most exp(``MAX_LOG_DEPTH``); finite also where not ``valid``."""
        return self.log_depth.clamp(max=MAX_LOG_DEPTH).exp()


def iter_decode(
    decode_clip: DecodeClip, latents: Float[Tensor, "T c h w"], chunk: int, overlap: int = 0
) -> Iterator[Float[Tensor, "t 3 H W"]]:
    """Decode chunk by chunk; yields finished maps of consecutive frames.

    With ``overlap`` neighbouring chunks share frames. The outer third of the shared frames of each chunk, which see the
    least context, is dropped, and the middle third is cross-faded. The last chunk is as long as the others, so that
    no frame is decoded with less context because the video happens to end soon. Where the decoder's reach in time is at
    most a third of the overlap, the result does not depend on the chunk at all.

    Args:
        decode_clip: sees one chunk.
        latents: not multiplied by the scaling factor.
        chunk: frames per chunk.
        overlap: shared frames, 0 <= overlap < chunk. 0 as published: the last chunk may be short.
    """
    if not 0 <= overlap < chunk:
        raise ValueError(f"expected 0 <= overlap < chunk, got overlap {overlap} and chunk {chunk}")
    num_frames = len(latents)
    pending: Tensor | None = None
    done = 0
    while done < num_frames:
        stop = min(done + chunk, num_frames)
        start = max(0, stop - chunk) if overlap else done
        maps = decode_clip(latents[start:stop])[done - start :]
        if pending is not None:
            weight = handover(overlap).to(maps.device)[:, None, None, None]
            maps = torch.cat([pending * (1 - weight) + maps[:overlap] * weight, maps[overlap:]])
        if stop == num_frames:
            yield maps
            return
        keep = len(maps) - overlap
        pending = maps[keep:] if overlap else None
        yield maps[:keep]
        done += keep


def handover(overlap: int) -> Float[Tensor, " overlap"]:
    """Weight of the later chunk on the shared frames: 0 on the first third, 1 on the last, rising between."""
    margin = overlap // 3
    fade = overlap - 2 * margin
    rise = torch.arange(1, fade + 1) / (fade + 1)
    return torch.cat([torch.zeros(margin), rise, torch.ones(margin)])


def resize_maps(maps: Float[Tensor, "T 3 h w"], size: tuple[int, int], nearest: bool = False) -> DecodedMaps:
    """Decoded maps at the size of the result; depth is interpolated, not its logarithm.

    Args:
        maps: theta, log depth, mask.
        size: (height, width).
        nearest: take log depth and mask from the nearest pixel instead; no new depths appear at edges.
    """
    theta, log_depth, mask = maps.float().split(1, dim=1)
    if tuple(maps.shape[-2:]) != size:
        theta = F.interpolate(theta, size=size, mode="bilinear", align_corners=False)
        if nearest:
            log_depth = F.interpolate(log_depth, size=size, mode="nearest-exact")
            mask = F.interpolate(mask, size=size, mode="nearest-exact")
        else:
            depth = log_depth.clamp(max=MAX_LOG_DEPTH).exp()
            log_depth = F.interpolate(depth, size=size, mode="bilinear", align_corners=False).log()
            mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
    return DecodedMaps(theta[:, 0], log_depth[:, 0], mask[:, 0])


@dataclass(frozen=True)
class TangentSums:
    """Running sums behind one mean tangent; those of disjoint sets of frames add up to those of their union."""

    theta_valid: float
    valid: float
    theta: float
    count: float

    @classmethod
    def of(cls, maps: DecodedMaps) -> "TangentSums":
        """Sums over all pixels of some frames."""
        theta, valid = maps.theta.double(), maps.valid
        return cls(float((theta * valid).sum()), float(valid.sum()), float(theta.sum()), float(theta.numel()))

    def __add__(self, other: "TangentSums") -> "TangentSums":
        return TangentSums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def mean(self, published: bool) -> float:
        """Mean theta over the valid pixels.

        Args:
            published: without a valid pixel the published formula gives 0, a camera without field of view; otherwise
                such a set takes the mean over all its pixels.
        """
        if self.valid == 0 and not published:
            return self.theta / self.count
        return (self.theta_valid / self.count) / (self.valid / self.count + 1e-4)


def frame_tangents(maps: DecodedMaps, published: bool = False) -> Float[Tensor, " T"]:
    """One mean theta per frame; see ``TangentSums.mean``."""
    frames = [
        DecodedMaps(maps.theta[t : t + 1], maps.log_depth[t : t + 1], maps.mask[t : t + 1])
        for t in range(len(maps.theta))
    ]
    means = [TangentSums.of(frame).mean(published) for frame in frames]
    return torch.tensor(means, dtype=maps.theta.dtype, device=maps.theta.device)


def maps_to_points(
    maps: DecodedMaps, theta: Float[Tensor, " T"] | float | None = None
) -> Float[Tensor, "T H W 3"]:
    """Camera-frame points of decoded maps.

    Args:
        maps: at the size of the result.
        theta: tangent of half the diagonal field of view, one per frame or one for all: points lie on pinhole rays.
            None: each pixel's own theta.
    """
    height, width = maps.theta.shape[1:]
    diagonal = (height**2 + width**2) ** 0.5
    grid = diagonal_grid((height, width), maps.theta.device)
    half_size = grid.new_tensor([width / diagonal, height / diagonal])
    tangent: Tensor | float
    if theta is None:
        tangent = maps.theta[..., None]
    elif isinstance(theta, Tensor):
        tangent = theta[:, None, None, None]
    else:
        tangent = theta
    depth = maps.depth
    xy = tangent * half_size * grid * depth[..., None]
    return torch.cat([xy, depth[..., None]], dim=-1)


def theta_to_intrinsics(theta: Float[Tensor, " T"], size: tuple[int, int]) -> Float[Tensor, "T 3 3"]:
    """Pinhole intrinsics, in pixels of ``size`` with centres at +0.5, of a mean theta on the corner-aligned grid.

    The grid reaches 1 at the last pixel's centre, half a pixel inside the border, so the focal length is (size - 1), not
    size, over twice the tangent. Projecting ``maps_to_points`` with it hits the pixel centres exactly.
    """
    height, width = size
    diagonal = (height**2 + width**2) ** 0.5
    intrinsics = torch.zeros(len(theta), 3, 3, dtype=theta.dtype, device=theta.device)
    intrinsics[:, 0, 0] = (width - 1) / (2 * theta * width / diagonal)
    intrinsics[:, 1, 1] = (height - 1) / (2 * theta * height / diagonal)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
    return intrinsics
