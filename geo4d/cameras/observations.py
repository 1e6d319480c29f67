"""Who saw which point where, and how to choose among what was seen.

Axis names: O observations, P points, S points shared by two cameras.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Observations:
    """Where points were seen.

    Attributes:
        camera, point: who saw what.
        uv: pixels relative to the principal point.
        weight: >= 0.
        log_depth: logarithm of a measured z-depth, or None; arbitrary where ``depth_weight`` is 0.
        depth_weight: pixels that an error of 1 in log depth counts as.
    """

    camera: Int[Tensor, " O"]
    point: Int[Tensor, " O"]
    uv: Float[Tensor, "O 2"]
    weight: Float[Tensor, " O"]
    log_depth: Float[Tensor, " O"] | None = None
    depth_weight: Float[Tensor, " O"] | None = None

    def select(
        self, keep: Bool[Tensor, " O"] | Int[Tensor, " M"], point: Int[Tensor, " M"] | None = None
    ) -> Observations:
        """Some of the observations (a mask, or rows), their points renumbered to ``point`` if given."""
        return Observations(
            self.camera[keep],
            self.point[keep] if point is None else point,
            self.uv[keep],
            self.weight[keep],
            None if self.log_depth is None else self.log_depth[keep],
            None if self.depth_weight is None else self.depth_weight[keep],
        )

    def slices(self, most: int) -> Iterator[tuple[slice, Observations]]:
        """Views of at most so many observations at a time, in order."""
        for first in range(0, len(self.camera), most):
            rows = slice(first, first + most)
            yield rows, self.rows(rows)

    def rows(self, rows: slice) -> Observations:
        """A view of consecutive observations."""
        return Observations(
            self.camera[rows],
            self.point[rows],
            self.uv[rows],
            self.weight[rows],
            None if self.log_depth is None else self.log_depth[rows],
            None if self.depth_weight is None else self.depth_weight[rows],
        )


def shared_points(observations: Observations, first: int, second: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points seen by both cameras: their numbers and both uv."""
    in_first = observations.camera == first
    in_second = observations.camera == second
    size = int(observations.point.max()) + 1 if len(observations.point) else 0
    row_first = torch.full((size,), -1, dtype=torch.long)
    row_second = torch.full((size,), -1, dtype=torch.long)
    row_first[observations.point[in_first]] = in_first.nonzero()[:, 0]
    row_second[observations.point[in_second]] = in_second.nonzero()[:, 0]
    both = ((row_first >= 0) & (row_second >= 0)).nonzero()[:, 0]
    return both, observations.uv[row_first[both]], observations.uv[row_second[both]]


def spread_points(observations: Observations, num_points: int, most: int) -> Bool[Tensor, " P"]:
    """At most so many points, evenly from all cells of an 8 x 8 grid of mean places, those seen longest first."""
    if num_points <= most:
        return torch.ones(num_points, dtype=torch.bool)
    count = torch.bincount(observations.point, minlength=num_points).double().clamp_min(1)
    place = torch.zeros(num_points, 2, dtype=torch.float64)
    place.index_add_(0, observations.point, observations.uv)
    place = place / count[:, None]
    low, high = place.amin(0), place.amax(0)
    column, row = (8 * (place - low) / (high - low).clamp_min(1e-9)).long().clamp_max(7).unbind(1)
    cell = 8 * row + column
    order = count.argsort(descending=True, stable=True)
    order = order[cell[order].argsort(stable=True)]  # by cell, longest tracks first
    rank = torch.arange(num_points) - torch.searchsorted(cell[order], cell[order])
    chosen = torch.zeros(num_points, dtype=torch.bool)
    chosen[order[rank.argsort(stable=True)[:most]]] = True
    return chosen


def observation_area(observations: Observations, cells: int = 8) -> Float[Tensor, " O"]:
    """How much of the pictures each observation stands for: every occupied cell of every camera counts as one.

    A mover with much texture has many points, but the still background has the larger part of the pictures.
    """
    if len(observations.uv) == 0:
        return torch.zeros(0, dtype=torch.float64)
    low, high = observations.uv.amin(0), observations.uv.amax(0)
    place = cells * (observations.uv - low) / (high - low).clamp_min(1e-9)
    column, row = place.long().clamp(0, cells - 1).unbind(1)
    cell = (observations.camera * cells + row) * cells + column
    return 1 / torch.bincount(cell).double()[cell]


def point_area(observations: Observations, num_points: int) -> Float[Tensor, " P"]:
    """How much of the pictures every point stands for; see ``observation_area``."""
    area = torch.zeros(num_points, dtype=torch.float64)
    return area.index_add_(0, observations.point, observation_area(observations))


def mean_per_point(value: Float[Tensor, " O"], observations: Observations) -> Float[Tensor, " P"]:
    """Mean of a value over the observations of each point, float64; 0 for points without any."""
    count = torch.bincount(observations.point).double()
    total = torch.zeros(len(count), dtype=torch.float64).index_add_(0, observations.point, value.double())
    return total / count.clamp_min(1)
