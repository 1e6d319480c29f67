"""The depth of single pixels, given cameras and windows: its cost, and reweighted Newton steps on its logarithm.

The solver polishes the sampled pixels with it, the dense maps every pixel.

Axis names: P pixels (with frames before them or not), O observations of a pixel by windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.optimise.kernels import norm_weight

LEAST_CURVATURE = 1e-9
"""Below this a pixel has no residual with weight, and its depth stays."""


@dataclass(frozen=True)
class PixelResiduals:
    """What windows say about the depths of some pixels.

    Attributes:
        ray_power: squared length of the viewing rays with z = 1.
        nearest: depth at which a ray passes nearest to the window's point.
        miss: squared distance there.
        weight: of the points.
        aligned: disparity of the windows in the unit of the world; None where no disparity counts.
        disparity_weight: of these.
        total: sum over the observations of each pixel.
        spread: value of each observation's pixel.
    """

    ray_power: Float[Tensor, "*p P"]
    nearest: Float[Tensor, "*o P"]
    miss: Float[Tensor, "*o P"]
    weight: Float[Tensor, "*o P"]
    aligned: Float[Tensor, "*o P"] | None
    disparity_weight: Float[Tensor, "*o P"] | None
    total: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]

    def distance(self, depth: Float[Tensor, "*p P"]) -> Float[Tensor, "*o P"]:
        """From the points at these depths to the windows' points, unit of the world."""
        offset = self.spread(depth) - self.nearest
        return torch.sqrt(torch.addcmul(self.miss, self.spread(self.ray_power) * offset, offset))

    def cost(self, depth: Float[Tensor, "*p P"]) -> Float[Tensor, "*p P"]:
        """Weighted distances and differences of disparity of every pixel if it had this depth."""
        value = self.weight * self.distance(depth)
        if self.aligned is not None and self.disparity_weight is not None:
            value += self.disparity_weight * (1 / self.spread(depth) - self.aligned).abs()
        return self.total(value)

    def newton_step(
        self, log_depth: Float[Tensor, "*p P"], width: float, *, largest: float
    ) -> Float[Tensor, "*p P"]:
        """Log depths after one reweighted Newton step.

        Args:
            width: distance below which norms are blunt.
            largest: change of a log depth in one step.
        """
        depth = log_depth.exp()
        offset = self.spread(depth) - self.nearest
        share = self.weight * norm_weight(self.distance(depth), width)
        gradient = self.total(share * offset) * self.ray_power * depth
        curvature = self.total(share) * self.ray_power * depth * depth
        if self.aligned is not None and self.disparity_weight is not None:
            inverse = 1 / depth
            difference = self.spread(inverse) - self.aligned
            beta = self.disparity_weight * norm_weight(difference.abs(), width)
            gradient = gradient - self.total(beta * difference) * inverse
            curvature = curvature + self.total(beta) * inverse * inverse
        return log_depth - (gradient / curvature.clamp(min=LEAST_CURVATURE)).clamp_(-largest, largest)

    def weighted_mean(self, log_depth: Float[Tensor, "*p P"], width: float) -> Float[Tensor, "*p P"]:
        """Log depths after one reweighted step where only points count: the minimum of the squares is known at once."""
        share = self.weight * norm_weight(self.distance(log_depth.exp()), width)
        mass = self.total(share)
        mean = self.total(share * self.nearest) / mass.clamp(min=1e-20)
        usable = (mass > 0) & (mean > 1e-3)
        return torch.where(usable, mean.clamp(1e-3, 1e3).log(), log_depth)

    def polished(
        self, log_depth: Float[Tensor, "*p P"], width: float, num_steps: int
    ) -> Float[Tensor, "*p P"]:
        """Log depths after some steps from near the minimum."""
        for _ in range(num_steps):
            if self.aligned is None:
                log_depth = self.weighted_mean(log_depth, width)
            else:
                log_depth = self.newton_step(log_depth, width, largest=0.5)
        return log_depth
