"""The refining stage of the published cameras: points become unknowns, and their depths count.

Every track of every window is one point of the world, which starts where the depth of its query frame puts it. Cameras
and points then minimise, summed over windows, the mean squared error in normalised device coordinates plus
``depth_weight`` times that of the ratio of depths; fields of view stay. The authors take as many steps of Adam as before;
here the shared least-squares engine goes to the minimum of the same sum, with the first camera held; see
``docs/decisions/camera_objective.md``.

Axis names: N cameras, O observations, V frames of a window, M tracks of a window.
Source: GeometryCrafter, supplement, Eq. (10), and the optional last stage of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleProblem
from geo4d.cameras.observations import Observations
from geo4d.cameras.published import LEAST_DEPTH, PublishedCameras, WindowTracks
from geo4d.cameras.terms import MIN_DEPTH, BundleState, PointTerm, Rows, Seen, seen_by, tidy
from geo4d.geometry.poses import matrix_to_quaternion, transform
from geo4d.optimise.damped import SolveReport, minimise
from geo4d.optimise.threads import one_thread


@dataclass(frozen=True)
class _Places:
    """Where a point is seen against its track: two rows, in normalised device coordinates. ``uv`` holds those."""

    observations: Observations
    tangent: Float[Tensor, "N 2"]

    def of(self, observations: Observations) -> _Places:
        """The term of other observations."""
        return _Places(observations, self.tangent)

    def cost(self, state: BundleState, width: float) -> float:
        """Weighted sum of squares."""
        return float(self.rows(state, seen_by(state, self.observations), width).residual.square().sum())

    def rows(self, state: BundleState, seen: Seen, width: float) -> Rows:
        """Linearised at a state."""
        observations = self.observations
        root = (observations.weight * _counts(seen)).sqrt()
        scale = root / self.tangent.T[:, observations.camera]
        by_place = torch.zeros(2, 3, len(root), dtype=root.dtype)
        by_place[0, 0], by_place[1, 1] = scale / seen.z
        by_place[:, 2] = -seen.plane * scale / seen.z
        return Rows(seen.plane * scale - observations.uv.T * root, by_place)


@dataclass(frozen=True)
class _DepthRatios:
    """The depth of a point over that of the map, minus one: one row."""

    observations: Observations

    def of(self, observations: Observations) -> _DepthRatios:
        """The term of other observations."""
        return _DepthRatios(observations)

    def cost(self, state: BundleState, width: float) -> float:
        """Weighted sum of squares."""
        return float(self.rows(state, seen_by(state, self.observations), width).residual.square().sum())

    def rows(self, state: BundleState, seen: Seen, width: float) -> Rows:
        """Linearised at a state."""
        log_depth, strength = self.observations.log_depth, self.observations.depth_weight
        assert log_depth is not None
        assert strength is not None
        counts = _counts(seen) & (seen.w > MIN_DEPTH)
        root = (self.observations.weight * strength * counts).sqrt()
        share = root * (-log_depth).exp() / seen.w.clamp_min(MIN_DEPTH)
        by_place = torch.zeros(1, 3, len(root), dtype=root.dtype)
        by_place[0, 2] = share
        ratio = share * seen.camera_points[2]
        return Rows((ratio - root)[None], by_place, by_w=(-ratio / seen.w.clamp_min(MIN_DEPTH))[None])


def _counts(seen: Seen) -> Bool[Tensor, " O"]:
    """Where a point is far enough before its camera."""
    return seen.ahead & (seen.z > LEAST_DEPTH * seen.w)


def query_points(
    cameras: PublishedCameras, window: WindowTracks
) -> tuple[Float[Tensor, "M 3"], Bool[Tensor, " M"]]:
    """Points of the world where the depth of the query frame puts them, and whether the track was seen there."""
    columns = torch.arange(window.ndc.shape[1])
    row = window.query_rows()
    frame = window.start + row
    tangent = torch.tan(cameras.fov[frame] / 2)
    z = window.depth[row, columns][:, None]
    points = torch.cat([window.ndc[row, columns] * tangent * z, z], 1)
    world = transform(cameras.c2w()[frame], points[:, None])[:, 0]
    return world, window.visible[row, columns] & (z[:, 0] > LEAST_DEPTH)


def refine_published(
    cameras: PublishedCameras,
    windows: Sequence[WindowTracks],
    *,
    depth_weight: float = 0.0,
    num_steps: int = 50,
) -> tuple[PublishedCameras, SolveReport]:
    """Cameras and points of the tracks together.

    Args:
        cameras: of the stage before.
        windows: the tracks that it used.
        depth_weight: of the squared error of a depth ratio against that of a place. 0 as in the authors' code: then
            depth is only where points start. Beside an edge it is off by a large ratio, which squares do not forgive.
        num_steps: of the engine, at most.
    Returns:
        cameras with the same fields of view, and how the solve went; its costs are those of the sum.
    Raises:
        ValueError: a negative weight, or no track that is seen in two frames has a depth where it was queried.
    """
    if not depth_weight >= 0:
        raise ValueError(f"expected a depth weight >= 0, got {depth_weight}")
    observations, points = _observed(cameras, windows, depth_weight)
    count = len(points)
    tangent = torch.tan(cameras.fov.double() / 2)

    def terms(chosen: Observations) -> list[PointTerm]:
        return [_Places(chosen, tangent), _DepthRatios(chosen)]

    w2c = cameras.w2c().double()
    held = torch.zeros(len(w2c), dtype=torch.bool)
    held[0] = True
    homogeneous = torch.cat([points.double(), torch.ones(count, 1, dtype=torch.float64)], 1)
    state = BundleState(
        w2c, torch.zeros(len(w2c), dtype=torch.float64), homogeneous / homogeneous.norm(dim=1, keepdim=True)
    )
    problem = BundleProblem(observations, held, BundleConfig(focal="fixed"), len(w2c), count, terms)
    with one_thread():
        state, report = minimise(
            problem, state, num_steps=num_steps, widths=(1.0, 1.0), damping=1e-3, tolerance=1e-6
        )
    found = tidy(state).w2c.to(cameras.fov)
    quaternion = matrix_to_quaternion(found[:, :3, :3].mT)
    return PublishedCameras(quaternion, found[:, :3, 3], cameras.fov), report


def _observed(
    cameras: PublishedCameras, windows: Sequence[WindowTracks], depth_weight: float
) -> tuple[Observations, Float[Tensor, "P 3"]]:
    """What all windows saw, each as a mean over its sights, and where the points start."""
    pieces, points, count = [], [], 0
    for window in windows:
        world, usable = query_points(cameras, window)
        visible = window.visible & usable
        visible &= (visible.sum(0) >= 2)[None]
        keep = visible.any(0)
        if not bool(keep.any()):
            continue
        frame, column = visible[:, keep].nonzero(as_tuple=True)
        depth = window.depth[:, keep][frame, column].double()
        pieces.append(
            Observations(
                window.start + frame,
                count + column,
                window.ndc[:, keep][frame, column].double(),
                torch.full((len(frame),), 1 / len(frame), dtype=torch.float64),
                depth.clamp_min(LEAST_DEPTH).log(),
                depth_weight * (depth > 0).double(),
            )
        )
        points.append(world[keep])
        count += int(keep.sum())
    if not pieces:
        raise ValueError("expected tracks that are seen twice, with depth where they were queried, got none")
    names = ("camera", "point", "uv", "weight", "log_depth", "depth_weight")
    joined = {name: torch.cat([getattr(piece, name) for piece in pieces]) for name in names}
    return Observations(**joined), torch.cat(points)
