"""Points and disparity at the sampled pixels of a range of frames, linearised with the depth of every pixel eliminated.

Axis names: n frames of the range, o observations of them, P pixels of a frame.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion import terms
from geo4d.fusion.pixels import PixelResiduals
from geo4d.fusion.samples import Samples
from geo4d.fusion.variables import Variables
from geo4d.geometry.poses import skew
from geo4d.optimise.kernels import norm_weight


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


class PixelTerms:
    """Points and disparity at the sampled pixels of a range of frames; the ranges bound the memory of a step."""

    def __init__(
        self, samples: Samples, optics: Optics, weights: Weights, count: float, first: int, last: int
    ) -> None:
        """
        Args:
            count: what the sums are divided by.
            first, last: range of frames, [first, last).
        """
        self.weights, self.count, self.first, self.last = weights, count, first, last
        edges = torch.searchsorted(samples.frame, torch.tensor([first, last], device=samples.frame.device))
        rows = slice(int(edges[0]), int(edges[1]))
        self.frame = samples.frame[rows] - first
        self.window, self.slot = samples.window[rows], samples.slot[rows]
        self.slots = samples.table.shape[1]
        self.points, self.disparity = samples.points[rows], samples.disparity[rows]
        self.pixels = samples.pixels[first:last]
        self.principal_point = optics.principal_point[first:last, :, None].to(self.pixels)
        self.aspect = optics.aspect[first:last].to(self.pixels)
        self.weight, self.disparity_valid = samples.weight[rows], samples.disparity_mask[rows]
        self.with_disparity = bool((weights.disparity > 0).any())

    @property
    def num_observations(self) -> int:
        return len(self.frame)

    # Products with the samples are made when they are asked for: kept, they would be as large as the samples.
    @property
    def offset(self) -> Tensor:
        """Pixels from the principal point."""
        return self.pixels - self.principal_point

    @property
    def point_weight(self) -> Tensor:
        return self.weight * self.weights.window.to(self.weight)[self.window][:, None]

    @property
    def disparity_mask(self) -> Tensor:
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

    def linearise(self, variables: Variables, view: PixelView, width: float) -> "Eliminated":
        """Normal equations of each frame's unknowns, with the depth of every pixel eliminated.

        In camera axes a window point q changes by dq = w x q + sigma q + tau, whatever moved it, so per observation
        seven numbers (and two of the disparity alignment) carry everything, and the second moments of (1, q, r) give
        their normal equations. ``adjoint_of_window`` and the camera's own turn then spread them over the unknowns.
        """
        num_frames, slots, num_samples = self.last - self.first, self.slots, self.points.shape[2]
        frame, slot = self.frame, self.slot
        depth = view.log_depth.exp()
        rays_o, depth_o = self.spread(view.rays), self.spread(depth)
        share = self.point_weight * norm_weight(view.distance, width) / self.count
        reach = depth_o[:, None] * rays_o
        points = view.points
        features = torch.cat([torch.ones_like(points[:, :1]), points, reach], 1)
        moments = ((features * share[:, None]) @ features.mT).double()
        mass, mean_q, mean_r = moments[:, 0, 0], moments[:, 0, 1:4], moments[:, 0, 4:7]
        qq, qr, rr = moments[:, 1:4, 1:4], moments[:, 1:4, 4:7], moments[:, 4:7, 4:7]
        trace_qq = qq.diagonal(dim1=1, dim2=2).sum(1)
        identity = torch.eye(3, dtype=torch.float64, device=points.device)
        plane = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64, device=points.device)

        def cross(matrix: Tensor) -> Tensor:
            """Sum of q x r from the sum of q r^T."""
            return torch.stack(
                [
                    matrix[:, 1, 2] - matrix[:, 2, 1],
                    matrix[:, 2, 0] - matrix[:, 0, 2],
                    matrix[:, 0, 1] - matrix[:, 1, 0],
                ],
                1,
            )

        # Local unknowns of an observation: turn (3), log scale, shift (3), disparity scale, disparity shift.
        local = torch.zeros(len(frame), 9, 9, dtype=torch.float64, device=points.device)
        local[:, :3, :3] = trace_qq[:, None, None] * identity - qq
        local[:, :3, 4:7] = skew(mean_q)
        local[:, 4:7, :3] = skew(mean_q).mT
        local[:, 3, 3] = trace_qq
        local[:, 3, 4:7] = local[:, 4:7, 3] = mean_q
        local[:, 4:7, 4:7] = mass[:, None, None] * identity
        gradient = torch.zeros(len(frame), 9, dtype=torch.float64, device=points.device)
        gradient[:, :3] = -cross(qr)
        gradient[:, 3] = trace_qq - qr.diagonal(dim1=1, dim2=2).sum(1)
        gradient[:, 4:7] = mean_q - mean_r
        with_focal = torch.zeros(len(frame), 9, dtype=torch.float64, device=points.device)
        with_focal[:, :3] = cross(qr * plane)
        with_focal[:, 3] = (qr.diagonal(dim1=1, dim2=2) * plane).sum(1)
        with_focal[:, 4:7] = mean_r * plane
        focal_focal = (rr.diagonal(dim1=1, dim2=2) * plane).sum(1)
        focal_gradient = (qr.diagonal(dim1=1, dim2=2) * plane).sum(1) - focal_focal

        # Coupling of the local unknowns with the log depth of each pixel.
        coupling = torch.zeros(
            num_frames, 9 * slots + 2, num_samples, dtype=points.dtype, device=points.device
        )
        piece = torch.empty(len(frame), 9, num_samples, dtype=points.dtype, device=points.device)
        minus = -share * depth_o
        qx, qy, qz = points.unbind(1)
        rx, ry = rays_o[:, 0], rays_o[:, 1]
        piece[:, 0] = minus * (qy - qz * ry)
        piece[:, 1] = minus * (qz * rx - qx)
        piece[:, 2] = minus * (qx * ry - qy * rx)
        piece[:, 3] = minus * view.nearest * self.spread(view.ray_power)
        piece[:, 4] = minus * rx
        piece[:, 5] = minus * ry
        piece[:, 6] = minus
        mass_n = self.total(share)
        depth_squared = depth * depth
        curvature = mass_n * view.ray_power * depth_squared
        pull = (mass_n * depth - self.total(share * view.nearest)) * view.ray_power * depth
        if view.difference is None:
            piece[:, 7:] = 0
        else:
            _, disparity_weight = self.disparity_terms(variables)
            assert disparity_weight is not None
            beta = disparity_weight * norm_weight(view.difference.abs(), width) / self.count
            slope = self.disparity
            if self.weights.typical_disparity_scale is not None:
                scale = variables.disparity_scale.to(points)[self.window]
                slope = slope + view.difference / scale[:, None]
            inverse = self.spread(1 / depth)
            beta_slope = beta * slope
            piece[:, 7] = beta_slope * inverse
            piece[:, 8] = beta * inverse
            curvature = curvature + self.total(beta) / depth_squared
            weighted = beta * view.difference
            pull = pull - self.total(weighted) / depth
            local[:, 7, 7] = (beta_slope * slope).sum(1, dtype=torch.float64)
            local[:, 7, 8] = local[:, 8, 7] = beta_slope.sum(1, dtype=torch.float64)
            local[:, 8, 8] = beta.sum(1, dtype=torch.float64)
            gradient[:, 7] = -(weighted * slope).sum(1, dtype=torch.float64)
            gradient[:, 8] = -weighted.sum(1, dtype=torch.float64)
        coupling[:, : 9 * slots].view(num_frames, slots, 9, num_samples)[frame, slot] = piece
        coupling[:, -2] = -(view.ray_power - 1) * depth_squared * mass_n
        coupling[:, -1] = pull
        inverse_curvature = 1 / (curvature * (1 + 1e-6) + 1e-12)
        eliminated = coupling * inverse_curvature[:, None]
        normal = -(eliminated @ coupling.mT).double()
        rows = 9 * slot[:, None] + torch.arange(9, device=slot.device)
        normal[frame[:, None, None], rows[:, :, None], rows[:, None, :]] += local
        normal[frame[:, None], rows, -2] += with_focal
        normal[frame[:, None], rows, -1] += gradient
        normal[:, -2, -2] += self.total(focal_focal)
        normal[:, -2, -1] += self.total(focal_gradient)
        # (row -2, column < -2) is filled from the symmetric part.
        normal[:, -2, :-2] = normal[:, :-2, -2]
        transform = self.frame_transform(variables)
        hessian = transform.mT @ normal[:, :-1, :-1] @ transform
        gradient_of_frame = (transform.mT @ normal[:, :-1, -1:])[..., 0]
        return Eliminated(hessian, gradient_of_frame, eliminated[:, :-1], pull * inverse_curvature)

    def frame_transform(self, variables: Variables) -> Tensor:
        """[n, 9 M + 1, 7 + 9 M] from the unknowns of a frame (camera, focal, windows) to the local ones."""
        frames = slice(self.first, self.last)
        slots, frame, slot = self.slots, self.frame, self.slot
        device = variables.centre.device
        result = torch.zeros(
            self.last - self.first, 9 * slots + 1, 7 + 9 * slots, dtype=torch.float64, device=device
        )
        adjoint = terms.adjoint_of_window(
            variables.rotation[frames][frame],
            variables.centre[frames][frame],
            variables.window_translation[self.window],
        )
        piece = torch.eye(9, dtype=torch.float64, device=device).repeat(len(frame), 1, 1)
        piece[:, :7, :7] = adjoint
        rows = 9 * slot[:, None] + torch.arange(9, device=device)
        result[frame[:, None, None], rows[:, :, None], 7 + rows[:, None, :]] = piece
        camera = torch.zeros(9, 6, dtype=torch.float64, device=device)
        camera[:3, :3] = camera[4:7, 3:] = -torch.eye(3, dtype=torch.float64, device=device)
        result[frame[:, None, None], rows[:, :, None], torch.arange(6, device=device)] = camera
        result[:, -1, 6] = 1
        return result


@dataclass(frozen=True)
class Eliminated:
    """Normal equations of a range of frames, and what puts the eliminated log depths back.

    Attributes:
        hessian, gradient: over a frame's unknowns.
        coupling, pull: log depth = - pull - coupling^T (``PixelTerms.frame_transform`` x step).
    """

    hessian: Tensor
    gradient: Tensor
    coupling: Tensor
    pull: Tensor
