"""Points and disparity at the sampled pixels of a range of frames; ``elimination`` linearises them.

Axis names: n frames of the range, o observations of them, P pixels of a frame.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.fusion import terms
from geo4d.fusion.pixels import PixelResiduals
from geo4d.fusion.samples import Samples
from geo4d.fusion.variables import Variables


@dataclass(frozen=True)
class Weights:
    """Weights of the terms, ready for the sums of ``SampledObjective``.

    Attributes:
        window: [G] weight of each window's points.
        disparity: [G] weight of each window's disparity; 0 where it is dropped or the stage has none.
        trajectory: [K] weight of each trajectory; 0 where it is dropped or the stage has none.
        smoothness: weight of the smoothness term.
        typical_disparity_scale: see ``terms.disparity_unit``; None is the published form.
        focal_smoothness: weight of the squared second difference of the log focal length between frames.
    """

    window: Float[Tensor, " G"]
    disparity: Float[Tensor, " G"]
    trajectory: Float[Tensor, " K"]
    smoothness: float
    typical_disparity_scale: float | None = None
    focal_smoothness: float = 0.0


@dataclass(frozen=True)
class Optics:
    """What is known of the cameras' intrinsics.

    Attributes:
        principal_point: [N, 2] pixels.
        aspect: [N] vertical over horizontal focal length.
    """

    principal_point: Float[Tensor, "N 2"]
    aspect: Float[Tensor, " N"]


@dataclass(frozen=True)
class PixelView:
    """What follows from the variables at the sampled pixels of some frames (o observations, n frames, P pixels).

    Attributes:
        log_depth: polished.
        rays: viewing rays with z = 1.
        ray_power: squared length of the rays.
        points: window points in camera axes.
        nearest: depth at which a ray passes nearest to the window's point.
        miss: squared distance there.
        distance: from the point at the current depth to the window's point.
        difference: disparity residual, or None when no disparity counts.
    """

    log_depth: Tensor
    rays: Tensor
    ray_power: Tensor
    points: Tensor
    nearest: Tensor
    miss: Tensor
    distance: Tensor
    difference: Tensor | None


@dataclass(frozen=True, eq=False)
class PixelTerms:
    """Points and disparity at the sampled pixels of a range of frames; the ranges bound the memory of a step.

    Attributes:
        weights: of the terms.
        count: what the sums are divided by.
        first, last: range of frames, [first, last).
        slots: most windows that see one frame.
        frame: counted from ``first``.
        window: that made each observation.
        slot: place of the window among those that see its frame.
        points: of the windows, in their own frame and unit.
        disparity: of the windows, not aligned.
        weight: of the points.
        disparity_valid: 1 where a disparity counts.
        pixels: of each frame's samples, pixels.
        principal_point: pixels.
        aspect: vertical over horizontal focal length.
        with_disparity: whether any disparity has weight.
    """

    weights: Weights
    count: float
    first: int
    last: int
    slots: int
    frame: Int[Tensor, " o"]
    window: Int[Tensor, " o"]
    slot: Int[Tensor, " o"]
    points: Float[Tensor, "o 3 P"]
    disparity: Float[Tensor, "o P"]
    weight: Float[Tensor, "o P"]
    disparity_valid: Tensor
    pixels: Float[Tensor, "n 2 P"]
    principal_point: Float[Tensor, "n 2 1"]
    aspect: Float[Tensor, " n"]
    with_disparity: bool

    @classmethod
    def of(
        cls, samples: Samples, optics: Optics, weights: Weights, count: float, first: int, last: int
    ) -> "PixelTerms":
        """The terms of the frames [first, last); views of the samples, nothing is copied."""
        edges = torch.searchsorted(samples.frame, torch.tensor([first, last], device=samples.frame.device))
        rows = slice(int(edges[0]), int(edges[1]))
        pixels = samples.pixels[first:last]
        return cls(
            weights=weights,
            count=count,
            first=first,
            last=last,
            slots=samples.table.shape[1],
            frame=samples.frame[rows] - first,
            window=samples.window[rows],
            slot=samples.slot[rows],
            points=samples.points[rows],
            disparity=samples.disparity[rows],
            weight=samples.weight[rows],
            disparity_valid=samples.disparity_mask[rows],
            pixels=pixels,
            principal_point=optics.principal_point[first:last, :, None].to(pixels),
            aspect=optics.aspect[first:last].to(pixels),
            with_disparity=bool((weights.disparity > 0).any()),
        )

    @property
    def num_observations(self) -> int:
        return len(self.frame)

    # Products with the samples are made when they are asked for: kept, they would be as large as the samples.
    @property
    def offset(self) -> Tensor:
        """Pixels from the principal point."""
        return self.pixels - self.principal_point

    @property
    def point_weight(self) -> Float[Tensor, "o P"]:
        """Weight of each point with its window's; 0 where the point does not count."""
        return self.weight * self.weights.window.to(self.weight)[self.window][:, None]

    @property
    def disparity_mask(self) -> Float[Tensor, "o P"]:
        """Weight of each disparity; 0 where it does not count."""
        return self.disparity_valid * self.weights.disparity.to(self.weight)[self.window][:, None]

    def total(self, values: Tensor) -> Tensor:
        """Sum over the observations of each frame."""
        result = torch.zeros(
            self.last - self.first, *values.shape[1:], dtype=values.dtype, device=values.device
        )
        return result.index_add_(0, self.frame, values)

    def spread(self, values: Tensor) -> Tensor:
        """Value of each observation's frame."""
        return values.index_select(0, self.frame)

    def disparity_terms(self, variables: Variables) -> tuple[Tensor | None, Tensor | None]:
        """Aligned disparity and its weight, [o, P] each."""
        if not self.with_disparity:
            return None, None
        scale = variables.disparity_scale.to(self.disparity)[self.window]
        shift = variables.disparity_shift.to(self.disparity)[self.window]
        unit = terms.disparity_unit(scale, self.weights.typical_disparity_scale)
        return scale[:, None] * self.disparity + shift[:, None], self.disparity_mask * unit[:, None]

    def view(self, variables: Variables, width: float, *, num_polish: int) -> PixelView:
        """What follows from the variables; the depths are polished first."""
        frames = slice(self.first, self.last)
        offset = self.offset
        focal = variables.log_focal[frames].exp().to(offset)
        x = offset[:, 0] / focal[:, None]
        y = offset[:, 1] / (focal * self.aspect)[:, None]
        rays = torch.stack([x, y, torch.ones_like(x)], 1)
        power = (rays * rays).sum(1)
        points = terms.moved_points(
            self.points,
            variables.window_scale[self.window],
            variables.window_rotation[self.window],
            variables.window_translation[self.window],
            variables.rotation[frames][self.frame],
            variables.centre[frames][self.frame],
        )
        rays_o, power_o = self.spread(rays), self.spread(power)
        nearest = torch.addcmul(points[:, 2], points[:, 0], rays_o[:, 0])
        nearest.addcmul_(points[:, 1], rays_o[:, 1]).div_(power_o)
        gap = torch.addcmul(points, rays_o, nearest[:, None], value=-1)
        miss = (gap * gap).sum(1)
        aligned, _ = self.disparity_terms(variables)
        pixels = self.residuals(variables, power, nearest, miss)
        log_depth = pixels.polished(variables.log_depth[frames], width, num_polish)
        depth = log_depth.exp()
        difference = None if aligned is None else self.spread(1 / depth) - aligned
        return PixelView(log_depth, rays, power, points, nearest, miss, pixels.distance(depth), difference)

    def residuals(
        self,
        variables: Variables,
        ray_power: Float[Tensor, "n P"],
        nearest: Float[Tensor, "o P"],
        miss: Float[Tensor, "o P"],
    ) -> PixelResiduals:
        """What the windows say about the depths; see ``PixelView`` for the words."""
        aligned, disparity_weight = self.disparity_terms(variables)
        weight, total, spread = self.point_weight, self.total, self.spread
        return PixelResiduals(ray_power, nearest, miss, weight, aligned, disparity_weight, total, spread)

    def pixel_cost(self, variables: Variables, view: PixelView, depth: Tensor) -> Tensor:
        """Points and disparity of every pixel if it had this depth, [n, P]."""
        return self.residuals(variables, view.ray_power, view.nearest, view.miss).cost(depth)

    def values(self, variables: Variables, view: PixelView) -> tuple[float, float]:
        """Points and disparity, weighted, over ``count``."""
        points = float((self.point_weight * view.distance).sum(dtype=torch.float64)) / self.count
        if view.difference is None:
            return points, 0.0
        _, disparity_weight = self.disparity_terms(variables)
        assert disparity_weight is not None
        weighted = disparity_weight * view.difference.abs()
        return points, float(weighted.sum(dtype=torch.float64)) / self.count
