"""The objective on sampled pixels as the solver sees it.

Per pixel, the log depth is eliminated: it touches only that pixel's residuals, so the solver's system holds cameras,
focal length, windows, disparity and trajectory alignments alone, and the depth is put back afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion import terms
from geo4d.fusion.pixel_terms import Optics, PixelTerms, PixelView, Weights
from geo4d.fusion.samples import Samples
from geo4d.fusion.variables import Columns, Variables, retract
from geo4d.geometry.poses import skew
from geo4d.optimise.band import Blocks, BorderedBandSystem
from geo4d.optimise.kernels import norm_weight
from geo4d.optimise.scratch import Scratch

_ROWS_AT_ONCE = 1024
"""Pairs of frames, or frames of trajectories, that are linearised together."""


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
            self.objective.samples.touched(part.num_observations)

    @property
    def distance(self) -> Float[Tensor, "O P"]:
        """From the point at the current depth to the window's point."""
        return torch.cat([part.distance for part in self.parts])


class SampledObjective:
    """The objective on ``Samples``: a ``damped.Problem`` over ``View``."""

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
        self._system: BorderedBandSystem | None = None

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
            self.samples.touched(part.num_observations)
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

    def evaluate(self, state: View | Variables, width: float) -> tuple[float, View]:
        """Cost, and the state with its depths polished."""
        view, pairs = self._polished(state.variables if isinstance(state, View) else state, width, 2)
        cost = sum(self.values(view, pairs).values())
        variables = view.variables
        if bool((variables.disparity_scale[self._active_disparity()] <= 0).any()):
            cost = float("inf")
        return (cost if np.isfinite(cost) else float("inf")), view

    def linearise(self, state: View, width: float) -> Callable[[float], View | None]:
        """A function from a damping to the state after its step, or None where the system is not positive."""
        if self._system is None:
            self._system = self.system()
        system, constraint = self._system, self.constraint()
        system.assemble(self.pieces(state, width))

        def step(damping: float) -> View | None:
            found = system.solve(damping, constraint)
            return None if found is None else self.retract(state, found)

        return step

    def _active_disparity(self) -> Tensor:
        return (self.weights.disparity > 0).to(self.samples.points.device)

    def retract(self, state: View, step: np.ndarray) -> View:
        """The state after a step of the system, its depths put back, not yet evaluated."""
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
        """Direction that steps must be orthogonal to: the free scale of the world; None where it is not free."""
        if self.gauge is None:
            return None
        vector = np.zeros(self.columns.total + 1)
        vector[self.columns.window[self.gauge.cpu(), 3].numpy()] = 1
        vector = vector[:-1]
        return vector if vector.any() else None

    def system(self) -> BorderedBandSystem:
        """An empty system with the pattern of ``pieces``."""
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

    def pieces(self, state: View, width: float) -> Iterator[Blocks]:
        """Normal equations, a range of frames, of their neighbours and of trajectories at a time: no more is held."""
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
        weight = self.weights.smoothness * norm_weight(residual.norm(dim=1), width)
        hessian, gradient = _normal(turn, residual, weight)
        residual = variables.centre[there] - variables.centre[here]
        move = torch.cat([zero, -first, zero, second], 2)
        weight = self.weights.smoothness * norm_weight(residual.norm(dim=1), 0.1 * width)
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
        hessian, gradient = _normal(turn, residual, track_weight * norm_weight(residual.norm(dim=1), width))
        residual = variables.centre[track_frame] - centre
        arm = centre - variables.trajectory_translation[self.track[rows]]
        identity = torch.eye(3, dtype=arm.dtype, device=arm.device).expand_as(zero)
        move = torch.cat([zero, camera, skew(arm), -arm[..., None], -identity], 2)
        weight = track_weight * norm_weight(residual.norm(dim=1), 0.1 * width)
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
