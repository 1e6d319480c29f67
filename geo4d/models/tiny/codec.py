"""Fixed linear codec: each 8x8 block of a normalised map <-> a few numbers. Exact and learned by counting, not descent.

A principal component basis per modality. Because its rows are orthonormal, a difference of latents is the same
difference in pixels; there is no encoder to fool and nothing to fine-tune. Fine edges are those of ``depth.py``.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from geo4d.models.tiny.config import BLOCK, TinyConfig
from geo4d.models.tiny.modalities import NormalisedMaps


class LatentCodec(nn.Module):
    """Normalised maps <-> latent of zero mean and unit spread per channel."""

    disparity_basis: Tensor
    disparity_mean: Tensor
    point_basis: Tensor
    point_mean: Tensor
    latent_mean: Tensor
    latent_std: Tensor
    template: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        pixels = BLOCK * BLOCK
        self.register_buffer("disparity_basis", torch.zeros(config.disparity_channels, pixels))
        self.register_buffer("disparity_mean", torch.zeros(pixels))
        self.register_buffer("point_basis", torch.zeros(config.point_channels, 3 * pixels))
        self.register_buffer("point_mean", torch.zeros(3 * pixels))
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        # Mean normalised disparity of the training scenes: what a model without eyes would answer.
        self.register_buffer("template", torch.zeros(64, 112))

    def encode(self, maps: NormalisedMaps) -> Float[Tensor, "*b T C h w"]:
        """Latent of normalised maps."""
        parts = [
            _to_blocks(maps.disparity) - self.disparity_mean,
            _to_blocks(maps.points) - self.point_mean,
        ]
        bases = [self.disparity_basis, self.point_basis]
        coefficients = [part @ basis.T for part, basis in zip(parts, bases, strict=True)]
        latent = torch.cat([*coefficients, maps.rays.movedim(-3, -1)], dim=-1)
        return ((latent - self.latent_mean) / self.latent_std).movedim(-1, -3)

    def decode(self, latent: Float[Tensor, "*b T C h w"]) -> NormalisedMaps:
        """Normalised maps of a latent; directions are not made unit again."""
        latent = latent.movedim(-3, -1) * self.latent_std + self.latent_mean
        disparity = (
            latent[..., self.config.channels("disparity")] @ self.disparity_basis + self.disparity_mean
        )
        points = latent[..., self.config.channels("points")] @ self.point_basis + self.point_mean
        rays = latent[..., self.config.channels("rays")]
        return NormalisedMaps(_from_blocks(disparity), _from_blocks(points), rays.movedim(-1, -3))

    def fit(self, batches: Iterable[NormalisedMaps]) -> None:
        """Find the bases, the spread of the latent and the template over training maps.

        Args:
            batches: maps of at least a few hundred windows; visited once.
        """
        disparity, points, rays = _Moments(BLOCK**2), _Moments(3 * BLOCK**2), _Moments(6)
        template, count = torch.zeros_like(self.template, dtype=torch.float64), 0
        for maps in batches:
            disparity.add(_to_blocks(maps.disparity))
            points.add(_to_blocks(maps.points))
            rays.add(maps.rays.movedim(-3, -1))
            flat = maps.disparity.flatten(0, -4)
            template += nn.functional.interpolate(flat, self.template.shape, mode="area").double().sum(0)[0]
            count += flat.shape[0]
        if count == 0:
            raise ValueError("expected at least one batch of maps to fit the codec, got none")
        self.template.copy_(template / count)
        spreads = []
        for moments, basis, mean in (
            (disparity, self.disparity_basis, self.disparity_mean),
            (points, self.point_basis, self.point_mean),
        ):
            values, vectors = torch.linalg.eigh(moments.covariance())
            kept = vectors.T.flip(0)[: basis.shape[0]]
            # A fixed sign, so that two fits on the same data agree.
            kept = kept * kept.sum(1, keepdim=True).sign().where(
                kept.sum(1, keepdim=True) != 0, torch.tensor(1.0)
            )
            basis.copy_(kept)
            mean.copy_(moments.mean())
            spreads.append(values.flip(0)[: basis.shape[0]].clamp(min=1e-8).sqrt())
        # Directions share one spread, and so do moments: a component that hardly varies (the forward one) must not be
        # blown up to the same importance.
        ray_variance = rays.covariance().diagonal()
        spreads += [
            part.mean().clamp(min=1e-8).sqrt().expand(3) for part in (ray_variance[:3], ray_variance[3:])
        ]
        self.latent_std.copy_(torch.cat(spreads))
        self.latent_mean.zero_()
        self.latent_mean[self.config.channels("rays")] = rays.mean().to(self.latent_mean)


class _Moments:
    """Running mean and covariance, float64."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.total = torch.zeros(size, dtype=torch.float64)
        self.square = torch.zeros(size, size, dtype=torch.float64)

    def add(self, samples: Float[Tensor, "... n"]) -> None:
        flat = samples.reshape(-1, samples.shape[-1]).double()
        self.count += flat.shape[0]
        self.total += flat.sum(0)
        self.square += flat.T @ flat

    def mean(self) -> Tensor:
        return self.total / self.count

    def covariance(self) -> Tensor:
        return self.square / self.count - torch.outer(self.mean(), self.mean())


def _to_blocks(maps: Float[Tensor, "*b C H W"]) -> Float[Tensor, "*b h w D"]:
    """Squares of ``BLOCK`` pixels as vectors: channel, row, column."""
    return pixel_unshuffle(maps, BLOCK).movedim(-3, -1).contiguous()


def _from_blocks(blocks: Float[Tensor, "*b h w D"]) -> Float[Tensor, "*b C H W"]:
    return pixel_shuffle(blocks.movedim(-1, -3), BLOCK).contiguous()
