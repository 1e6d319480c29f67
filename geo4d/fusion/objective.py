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
from geo4d.fusion.camera_terms import (
    TrajectoryRows,
    linearise_focal,
    linearise_smoothness,
    linearise_trajectories,
)
from geo4d.fusion.elimination import frame_transform, linearise
from geo4d.fusion.pixel_terms import Optics, PixelTerms, PixelView, Weights
from geo4d.fusion.samples import Samples
from geo4d.fusion.variables import Columns, Variables, retract
from geo4d.optimise.band import Blocks, BorderedBandSystem
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
            PixelTerms.of(
                samples, optics, weights, count, first, min(first + frames_per_part, samples.num_frames)
            )
            for first in range(0, samples.num_frames, frames_per_part)
        ]
        self.rows = TrajectoryRows.of(samples.trajectories, weights.trajectory, device)
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
        if len(self.rows):
            ranges = [slice(a, a + _ROWS_AT_ONCE) for a in range(0, len(self.rows), _ROWS_AT_ONCE)]
            distance = torch.cat([self.rows.rows(rows).distance(variables) for rows in ranges])
            trajectory = float((self.rows.weight * distance).sum())
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
                local = (frame_transform(part, variables) @ full[columns][..., None])[..., 0]
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
        frame, trajectory = self.rows.frame.cpu(), self.rows.trajectory.cpu()
        patterns.append(torch.cat([columns.camera[frame], columns.trajectory[trajectory]], 1))
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
            found = linearise(part, state.variables, seen, width)
            self._coupling.array[part.first : part.last] = found.coupling.cpu().numpy()
            self._coupling.touched(found.coupling.numel() * found.coupling.element_size())
            self._pull.append(found.pull)
            yield Blocks(self._frame_columns[part.first : part.last], found.hessian, found.gradient)
        for first in range(0, samples.num_frames - 1, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, samples.num_frames - 1)
            yield linearise_smoothness(
                state.variables, self.weights.smoothness, self.columns, width, first, last
            )
        for first in range(0, len(self.rows), _ROWS_AT_ONCE):
            rows = self.rows.rows(slice(first, first + _ROWS_AT_ONCE))
            yield linearise_trajectories(rows, state.variables, self.columns, width)
        if self.weights.focal_smoothness:
            yield linearise_focal(state.variables, self.weights.focal_smoothness, self.columns)
