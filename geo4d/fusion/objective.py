"""The objective on sampled pixels as the solver sees it, and on all pixels as it is reported.

Per pixel, the log depth is eliminated: it touches only that pixel's residuals, so the solver's system holds cameras,
focal length, windows, disparity and trajectory alignments alone, and the depth is put back afterwards.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion import terms
from geo4d.fusion.samples import Samples, point_weight
from geo4d.fusion.scratch import Scratch
from geo4d.fusion.solver import Blocks, BorderedBandSystem
from geo4d.fusion.variables import Columns, Variables, retract
from geo4d.geometry.poses import skew
from geo4d.types import Prediction

_ROWS_AT_ONCE = 1024
"""Pairs of frames, or frames of trajectories, that are linearised together."""


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


@dataclass(frozen=True)
class View:
    """Variables with polished depths; what follows from them at the pixels is made when it is asked for, and not kept."""

    variables: Variables
    objective: "SampledObjective"

    @property
    def parts(self) -> Iterator[PixelView]:
        """What follows from the variables, a range of frames at a time."""
        for part in self.objective.parts:
            yield part.view(self.variables, 1.0, num_polish=0)

    @property
    def distance(self) -> Float[Tensor, "O P"]:
        """From the point at the current depth to the window's point."""
        return torch.cat([part.distance for part in self.parts])


@dataclass(frozen=True)
class Optics:
    """What is known of the cameras' intrinsics.

    Attributes:
        principal_point: [N, 2] pixels.
        aspect: [N] vertical over horizontal focal length.
    """

    principal_point: Float[Tensor, "N 2"]
    aspect: Float[Tensor, " N"]


def polish_log_depth(
    log_depth: Float[Tensor, "N P"],
    ray_power: Float[Tensor, "N P"],
    nearest: Float[Tensor, "O P"],
    miss: Float[Tensor, "O P"],
    weight: Float[Tensor, "O P"],
    aligned: Float[Tensor, "O P"] | None,
    disparity_weight: Float[Tensor, "O P"] | None,
    total: Callable[[Tensor], Tensor],
    spread: Callable[[Tensor], Tensor],
    *,
    width: float,
    num_steps: int,
) -> Float[Tensor, "N P"]:
    """Reweighted Newton steps on the log depth of every pixel alone.

    Args:
        aligned: disparity of the windows in the unit of the world.
        total, spread: sum over the observations of each frame, and its transpose.
    """
    power = spread(ray_power)
    for _ in range(num_steps):
        depth = log_depth.exp()
        offset = spread(depth) - nearest
        share = weight / torch.sqrt(torch.addcmul(miss, power * offset, offset)).clamp_(min=width)
        if aligned is None or disparity_weight is None:
            mass = total(share)
            mean = total(share * nearest) / mass.clamp(min=1e-20)
            usable = (mass > 0) & (mean > 1e-3)
            log_depth = torch.where(usable, mean.clamp(1e-3, 1e3).log(), log_depth)
            continue
        inverse = 1 / depth
        difference = spread(inverse) - aligned
        beta = disparity_weight / difference.abs().clamp_(min=width)
        gradient = total(share * offset) * ray_power * depth - total(beta * difference) * inverse
        curvature = total(share) * ray_power * depth * depth + total(beta) * inverse * inverse
        log_depth = log_depth - (gradient / curvature.clamp(min=1e-9)).clamp_(-0.5, 0.5)
    return log_depth


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
        aligned, disparity_weight = self.disparity_terms(variables)
        log_depth = polish_log_depth(
            variables.log_depth[frames],
            power,
            nearest,
            miss,
            self.point_weight,
            aligned,
            disparity_weight,
            self.total,
            self.spread,
            width=width,
            num_steps=num_polish,
        )
        depth = log_depth.exp()
        offset = self.spread(depth) - nearest
        distance = torch.sqrt(torch.addcmul(miss, power_o * offset, offset))
        difference = None if aligned is None else self.spread(1 / depth) - aligned
        return PixelView(log_depth, rays, power, points, nearest, miss, distance, difference)

    def pixel_cost(self, variables: Variables, view: PixelView, depth: Tensor) -> Tensor:
        """Points and disparity of every pixel if it had this depth, [n, P]."""
        at = self.spread(depth)
        offset = at - view.nearest
        power = self.spread(view.ray_power)
        value = self.point_weight * torch.sqrt(torch.addcmul(view.miss, power * offset, offset))
        aligned, disparity_weight = self.disparity_terms(variables)
        if aligned is not None and disparity_weight is not None:
            value += disparity_weight * (1 / at - aligned).abs()
        return self.total(value)

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
        share = self.point_weight / view.distance.clamp(min=width) / self.count
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
            beta = disparity_weight / view.difference.abs().clamp(min=width) / self.count
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


class SampledObjective:
    """The objective on ``Samples``: a ``solver.Problem`` over ``View``."""

    def __init__(
        self,
        samples: Samples,
        optics: Optics,
        weights: Weights,
        columns: Columns,
        gauge: Tensor | None,
        *,
        frames_per_part: int = 48,
        scratch: Path | None = None,
    ) -> None:
        """
        Args:
            gauge: [G] True for the windows whose mean log scale is held; None where the scale is not free.
            frames_per_part: frames that are worked on together.
            scratch: folder for what is too large to be held in memory; None takes the system's temporary one.
        """
        self._scratch = scratch
        self.samples, self.weights, self.columns, self.gauge = samples, weights, columns, gauge
        device = samples.points.device
        observed = weights.window.to(device)[samples.window]
        count = float(observed.sum()) * samples.points.shape[2]
        self.parts = [
            PixelTerms(
                samples, optics, weights, count, first, min(first + frames_per_part, samples.num_frames)
            )
            for first in range(0, samples.num_frames, frames_per_part)
        ]
        track_frames = [trajectory.frames for trajectory in samples.trajectories]
        self.track = torch.cat(
            [torch.full_like(f, k) for k, f in enumerate(track_frames)] or [torch.zeros(0, dtype=torch.long)]
        ).to(device)
        self.track_frame = torch.cat(track_frames or [torch.zeros(0, dtype=torch.long)]).to(device)
        self.track_c2w = torch.cat(
            [t.c2w for t in samples.trajectories] or [torch.zeros(0, 4, 4, dtype=torch.float64)]
        ).to(device)
        self.track_weight = weights.trajectory.to(device)[self.track] * torch.cat(
            [t.weight for t in samples.trajectories] or [torch.zeros(0, dtype=torch.float64)]
        ).to(device)
        used = self.track_weight > 0
        self.track, self.track_frame = self.track[used], self.track_frame[used]
        self.track_c2w, self.track_weight = self.track_c2w[used], self.track_weight[used]
        self._coupling: Scratch | None = None
        self._pull: list[Tensor] = []

    def view(self, variables: Variables, width: float, *, num_polish: int = 2) -> View:
        """The variables with their depths polished."""
        return self._polished(variables, width, num_polish)[0]

    def _polished(
        self, variables: Variables, width: float, num_polish: int
    ) -> tuple[View, list[tuple[float, float]]]:
        """The view, and the values of points and disparity in every range of frames."""
        log_depth = torch.empty_like(variables.log_depth)
        pairs = []
        for part in self.parts:
            seen = part.view(variables, width, num_polish=num_polish)
            log_depth[part.first : part.last] = seen.log_depth
            pairs.append(part.values(variables, seen))
        return View(replace(variables, log_depth=log_depth), self), pairs

    def values(self, view: View, pairs: Sequence[tuple[float, float]] | None = None) -> dict[str, float]:
        """Weighted value of every term on the sampled pixels.

        Args:
            pairs: values of points and disparity in every range of frames, where they are known already.
        """
        variables, weights = view.variables, self.weights
        if pairs is None:
            pairs = [part.values(variables, seen) for part, seen in zip(self.parts, view.parts, strict=True)]
        smooth = terms.camera_distance(
            variables.rotation[:-1], variables.centre[:-1], variables.rotation[1:], variables.centre[1:]
        )
        trajectory = 0.0
        if len(self.track):
            ranges = [slice(a, a + _ROWS_AT_ONCE) for a in range(0, len(self.track), _ROWS_AT_ONCE)]
            distance = torch.cat([self._track_distance(variables, rows) for rows in ranges])
            trajectory = float((self.track_weight * distance).sum())
        values = {
            "points": sum(pair[0] for pair in pairs),
            "disparity": sum(pair[1] for pair in pairs),
            "trajectory": trajectory,
            "smoothness": weights.smoothness * float(smooth.sum()),
        }
        if weights.focal_smoothness:
            values["focal"] = (
                0.5 * weights.focal_smoothness * float((variables.log_focal.diff(n=2) ** 2).sum())
            )
        return values

    # The solver's protocol.
    def evaluate(self, state: View | Variables, width: float) -> tuple[float, View]:
        view, pairs = self._polished(state.variables if isinstance(state, View) else state, width, 2)
        cost = sum(self.values(view, pairs).values())
        variables = view.variables
        if bool((variables.disparity_scale[self._active_disparity()] <= 0).any()):
            cost = float("inf")
        return (cost if np.isfinite(cost) else float("inf")), view

    def _active_disparity(self) -> Tensor:
        return (self.weights.disparity > 0).to(self.samples.points.device)

    def retract(self, state: View, step: np.ndarray) -> View:
        variables = state.variables
        full = torch.from_numpy(np.append(step, 0.0)).to(variables.centre)
        moved = retract(variables, full, self.columns)
        if self._coupling is not None:
            changes = []
            for part, pull in zip(self.parts, self._pull, strict=True):
                columns = self._frame_columns[part.first : part.last]
                local = (part.frame_transform(variables) @ full[columns][..., None])[..., 0]
                coupling = torch.from_numpy(self._coupling.array[part.first : part.last]).to(pull.device)
                changes.append((local[:, None].to(coupling) @ coupling)[:, 0] + pull)
                self._coupling.touched(coupling.numel() * coupling.element_size())
            moved = replace(moved, log_depth=variables.log_depth - torch.cat(changes).clamp_(-0.5, 0.5))
        return replace(state, variables=moved)

    def constraint(self) -> np.ndarray | None:
        if self.gauge is None:
            return None
        vector = np.zeros(self.columns.total + 1)
        vector[self.columns.window[self.gauge.cpu(), 3].numpy()] = 1
        vector = vector[:-1]
        return vector if vector.any() else None

    def system(self) -> BorderedBandSystem:
        columns, samples = self.columns, self.samples
        table = samples.table.cpu()
        window = torch.where(table >= 0, samples.window.cpu()[table], 0)
        absent = (table < 0)[..., None]
        parts = [columns.camera, columns.focal[:, None]]
        pieces = torch.cat([columns.window[window], columns.disparity[window]], -1)
        parts.append(torch.where(absent, columns.total, pieces).flatten(1))
        self._frame_columns = torch.cat(parts, 1)
        patterns = [self._frame_columns, torch.cat([columns.camera[:-1], columns.camera[1:]], 1)]
        frame, track = self.track_frame.cpu(), self.track.cpu()
        patterns.append(torch.cat([columns.camera[frame], columns.trajectory[track]], 1))
        if self.weights.focal_smoothness:
            patterns.append(torch.stack([columns.focal[:-2], columns.focal[1:-1], columns.focal[2:]], 1))
        return BorderedBandSystem(patterns, columns.num_band, columns.total, self._scratch)

    def linearise(self, state: View, width: float) -> Iterator[Blocks]:
        """A range of frames, of their neighbours and of trajectories at a time: no more is in memory together."""
        samples = self.samples
        if self._coupling is None:
            shape = (samples.num_frames, 9 * samples.table.shape[1] + 1, samples.points.shape[2])
            self._coupling = Scratch(shape, np.float32, self._scratch)
        self._pull = []
        for part, seen in zip(self.parts, state.parts, strict=True):
            found = part.linearise(state.variables, seen, width)
            self._coupling.array[part.first : part.last] = found.coupling.cpu().numpy()
            self._coupling.touched(found.coupling.numel() * found.coupling.element_size())
            self._pull.append(found.pull)
            yield Blocks(self._frame_columns[part.first : part.last], found.hessian, found.gradient)
        for first in range(0, samples.num_frames - 1, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, samples.num_frames - 1)
            yield self._linearise_smoothness(state.variables, width, first, last)
        for first in range(0, len(self.track), _ROWS_AT_ONCE):
            yield self._linearise_trajectory(state.variables, width, slice(first, first + _ROWS_AT_ONCE))
        if self.weights.focal_smoothness:
            yield self._linearise_focal(state.variables)

    def _moved_track(self, variables: Variables, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
        track = self.track[rows]
        return terms.moved_trajectory(
            self.track_c2w[rows],
            variables.trajectory_scale[track],
            variables.trajectory_rotation[track],
            variables.trajectory_translation[track],
        )

    def _track_distance(self, variables: Variables, rows: slice) -> Tensor:
        """Between the cameras of trajectories and those of the variables."""
        rotation, centre = self._moved_track(variables, rows)
        frame = self.track_frame[rows]
        return terms.camera_distance(rotation, centre, variables.rotation[frame], variables.centre[frame])

    def _linearise_smoothness(self, variables: Variables, width: float, start: int, stop: int) -> Blocks:
        """Of the frames [start, stop) with the ones after them."""
        here, there = slice(start, stop), slice(start + 1, stop + 1)
        columns = torch.cat([self.columns.camera[here], self.columns.camera[there]], 1)
        first, second = variables.rotation[here], variables.rotation[there]
        residual, by_first, by_second = terms.linearised_rotation(first, second)
        zero = torch.zeros_like(first)
        turn = torch.cat([by_first, zero, by_second, zero], 2)
        weight = self.weights.smoothness / residual.norm(dim=1).clamp(min=width)
        hessian, gradient = _normal(turn, residual, weight)
        residual = variables.centre[there] - variables.centre[here]
        move = torch.cat([zero, -first, zero, second], 2)
        weight = self.weights.smoothness / residual.norm(dim=1).clamp(min=0.1 * width)
        more_hessian, more_gradient = _normal(move, residual, weight)
        return Blocks(columns, hessian + more_hessian, gradient + more_gradient)

    def _linearise_trajectory(self, variables: Variables, width: float, rows: slice) -> Blocks:
        track_frame, track_weight = self.track_frame[rows], self.track_weight[rows]
        frame, track = track_frame.cpu(), self.track[rows].cpu()
        columns = torch.cat([self.columns.camera[frame], self.columns.trajectory[track]], 1)
        rotation, centre = self._moved_track(variables, rows)
        camera = variables.rotation[track_frame]
        residual, _, by_camera = terms.linearised_rotation(rotation, camera)
        zero = torch.zeros_like(rotation)
        turn = torch.cat([by_camera, zero, -(2**0.5) * camera.mT, zero[..., :1], zero], 2)
        hessian, gradient = _normal(turn, residual, track_weight / residual.norm(dim=1).clamp(min=width))
        residual = variables.centre[track_frame] - centre
        arm = centre - variables.trajectory_translation[self.track[rows]]
        identity = torch.eye(3, dtype=arm.dtype, device=arm.device).expand_as(zero)
        move = torch.cat([zero, camera, skew(arm), -arm[..., None], -identity], 2)
        weight = track_weight / residual.norm(dim=1).clamp(min=0.1 * width)
        more_hessian, more_gradient = _normal(move, residual, weight)
        return Blocks(columns, hessian + more_hessian, gradient + more_gradient)

    def _linearise_focal(self, variables: Variables) -> Blocks:
        columns = torch.stack([self.columns.focal[:-2], self.columns.focal[1:-1], self.columns.focal[2:]], 1)
        residual = variables.log_focal.diff(n=2)[:, None]
        jacobian = torch.tensor([[1.0, -2.0, 1.0]], dtype=torch.float64, device=residual.device)
        weight = torch.full_like(residual[:, 0], self.weights.focal_smoothness)
        hessian, gradient = _normal(jacobian.expand(len(residual), 1, 3), residual, weight)
        return Blocks(columns, hessian, gradient)


def _normal(jacobian: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """J^T w J and J^T w r of a batch of residual vectors."""
    weighted = weight[:, None, None] * jacobian
    return weighted.mT @ jacobian, (weighted.mT @ residual[..., None])[..., 0]


@dataclass(frozen=True)
class ObjectiveValues:
    """Weighted terms on all pixels, and their sum."""

    points: float
    disparity: float
    trajectory: float
    smoothness: float

    @property
    def total(self) -> float:
        return self.points + self.disparity + self.trajectory + self.smoothness

    def to_dict(self) -> dict[str, float]:
        return {**vars(self), "total": self.total}


def evaluate_objective(
    predictions: Sequence[Prediction],
    variables: Variables,
    depth_of: Callable[[int], Float[Tensor, "H W"]],
    optics: Optics,
    *,
    disparity_weight: Float[Tensor, " G"],
    trajectory_weight: Mapping[int, float],
    smoothness_weight: float,
    weight_limit: float,
    min_disparity: float,
    typical_disparity_scale: float | None = None,
    window_weight: Float[Tensor, " G"] | None = None,
    mask_sky: bool = True,
) -> ObjectiveValues:
    """The objective on all pixels, window by window; with the published weights, the published loss.

    Args:
        variables: ``log_depth`` is not read.
        depth_of: frame -> dense depth; not finite counts as infinitely far in the disparity term and not at all in the
            point term.
        disparity_weight: [G]; 0 for dropped windows.
        trajectory_weight: window -> weight of its trajectory; absent for dropped ones. Trajectories are numbered in
            the order of the windows that carry one.
        window_weight: [G] weight of a window's points, and its share in the mean; None for 1.
        mask_sky: leave pixels that the predictor calls sky out of the disparity term.
    Source: Geo4D Eq. (4) to (9), as summed by the authors' code: points and disparity are means over all pixels of
        all windows, trajectory and smoothness are sums.
    """
    points_sum = disparity_sum = trajectory_sum = count = 0.0
    track = 0
    scale_all = variables.disparity_scale
    for index in range(len(predictions)):
        prediction = predictions[index]
        height, width = prediction.size
        frames = prediction.frame_indices.long()
        depth = torch.stack([depth_of(int(frame)) for frame in frames]).flatten(1).float()
        weight_of_window = 1.0 if window_weight is None else float(window_weight[index])
        count += weight_of_window * depth.numel()
        finite = torch.isfinite(depth)
        focal = variables.log_focal.exp()[frames].float()
        grid_y, grid_x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        centre = optics.principal_point[frames].float()
        rays = torch.stack(
            [
                (grid_x.reshape(1, -1) - centre[:, :1]) / focal[:, None],
                (grid_y.reshape(1, -1) - centre[:, 1:]) / (focal * optics.aspect[frames].float())[:, None],
                torch.ones(len(frames), height * width),
            ],
            1,
        )
        if prediction.point_map is not None:
            points = prediction.point_map.float()
            uncertainty = prediction.point_uncertainty
            weight = point_weight(
                prediction, points, uncertainty, prediction.valid, 1.0, weight_limit
            ).flatten(1)
            moved = terms.moved_points(
                torch.nan_to_num(points).flatten(1, 2).mT,
                variables.window_scale[index].expand(len(frames)),
                variables.window_rotation[index].expand(len(frames), 3, 3),
                variables.window_translation[index].expand(len(frames), 3),
                variables.rotation[frames],
                variables.centre[frames],
            )
            safe = torch.where(finite, depth, torch.ones_like(depth))
            distance = terms.point_residual(safe, rays, moved).norm(dim=1)
            points_sum += weight_of_window * float((weight * distance * finite).sum(dtype=torch.float64))
        if prediction.disparity is not None and float(disparity_weight[index]) > 0:
            disparity = prediction.disparity.flatten(1).float()
            expanded = scale_all[index].expand(len(frames))
            difference = terms.disparity_residual(
                torch.nan_to_num(depth, nan=torch.inf, posinf=torch.inf),
                disparity,
                expanded,
                variables.disparity_shift[index].expand(len(frames)),
            )
            unit = float(terms.disparity_unit(scale_all[index], typical_disparity_scale))
            mask = torch.isfinite(disparity) & (disparity > min_disparity)
            if mask_sky and prediction.sky is not None:
                mask = mask & ~prediction.sky.flatten(1)
            total = float(torch.where(mask, difference.abs(), 0.0).sum(dtype=torch.float64))
            disparity_sum += float(disparity_weight[index]) * unit * total
        cameras = prediction.ray_c2w if prediction.ray_c2w is not None else prediction.c2w
        if cameras is not None:
            if index in trajectory_weight:
                rotation, centre_w = terms.moved_trajectory(
                    cameras.double(),
                    variables.trajectory_scale[track].expand(len(frames)),
                    variables.trajectory_rotation[track].expand(len(frames), 3, 3),
                    variables.trajectory_translation[track].expand(len(frames), 3),
                )
                distance = terms.camera_distance(
                    rotation, centre_w, variables.rotation[frames], variables.centre[frames]
                )
                trajectory_sum += trajectory_weight[index] * float(distance.sum())
            track += 1
    smooth = terms.camera_distance(
        variables.rotation[:-1], variables.centre[:-1], variables.rotation[1:], variables.centre[1:]
    )
    return ObjectiveValues(
        points=points_sum / max(count, 1.0),
        disparity=disparity_sum / max(count, 1.0),
        trajectory=trajectory_sum,
        smoothness=smoothness_weight * float(smooth.sum()),
    )
