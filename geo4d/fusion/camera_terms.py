"""Terms of the objective that look at cameras alone (trajectories, smoothness, focal length) and their normal equations.

Axis names: K trajectories, R rows (one frame of one trajectory).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.fusion import terms
from geo4d.fusion.samples import Trajectory
from geo4d.fusion.variables import Columns, Variables
from geo4d.geometry.poses import skew
from geo4d.optimise.band import Blocks
from geo4d.optimise.kernels import norm_weight

TURN_TO_MOVE = 0.1
"""Width of the blunt part of a norm of positions, over the one of a norm of rotations."""


@dataclass(frozen=True)
class TrajectoryRows:
    """The frames of all trajectories that have weight, one row each.

    Attributes:
        trajectory: number of the trajectory.
        frame: of the video.
        c2w: camera to the trajectory's own frame and unit.
        weight: > 0.
    """

    trajectory: Int[Tensor, " R"]
    frame: Int[Tensor, " R"]
    c2w: Float[Tensor, "R 4 4"]
    weight: Float[Tensor, " R"]

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def of(
        cls,
        trajectories: tuple[Trajectory, ...],
        weight: Float[Tensor, " K"],
        device: torch.device,
    ) -> "TrajectoryRows":
        """All frames whose own weight and whose trajectory's are above zero.

        Args:
            weight: of each trajectory.
        """
        number = torch.cat(
            [torch.full_like(t.frames, k) for k, t in enumerate(trajectories)]
            or [torch.zeros(0, dtype=torch.long)]
        ).to(device)
        frame = torch.cat([t.frames for t in trajectories] or [torch.zeros(0, dtype=torch.long)]).to(device)
        c2w = torch.cat([t.c2w for t in trajectories] or [torch.zeros(0, 4, 4, dtype=torch.float64)]).to(
            device
        )
        weights = weight.to(device)[number] * torch.cat(
            [t.weight for t in trajectories] or [torch.zeros(0, dtype=torch.float64)]
        ).to(device)
        used = weights > 0
        return cls(number[used], frame[used], c2w[used], weights[used])

    def rows(self, rows: slice) -> "TrajectoryRows":
        """Some of the rows."""
        return TrajectoryRows(self.trajectory[rows], self.frame[rows], self.c2w[rows], self.weight[rows])

    def moved(self, variables: Variables) -> tuple[Float[Tensor, "R 3 3"], Float[Tensor, "R 3"]]:
        """Rotation (camera to world) and centre of each row's camera in the world."""
        return terms.moved_trajectory(
            self.c2w,
            variables.trajectory_scale[self.trajectory],
            variables.trajectory_rotation[self.trajectory],
            variables.trajectory_translation[self.trajectory],
        )

    def distance(self, variables: Variables) -> Float[Tensor, " R"]:
        """Between the cameras of the trajectories and those of the variables."""
        rotation, centre = self.moved(variables)
        return terms.camera_distance(
            rotation, centre, variables.rotation[self.frame], variables.centre[self.frame]
        )


def linearise_smoothness(
    variables: Variables, weight: float, columns: Columns, width: float, start: int, stop: int
) -> Blocks:
    """Of the frames [start, stop) with the ones after them.

    Args:
        weight: of the term.
        width: angle (radians) below which the norm is blunt; positions take ``TURN_TO_MOVE`` of it.
    """
    here, there = slice(start, stop), slice(start + 1, stop + 1)
    unknowns = torch.cat([columns.camera[here], columns.camera[there]], 1)
    first, second = variables.rotation[here], variables.rotation[there]
    residual, by_first, by_second = terms.linearised_rotation(first, second)
    zero = torch.zeros_like(first)
    turn = torch.cat([by_first, zero, by_second, zero], 2)
    hessian, gradient = _normal(turn, residual, weight * norm_weight(residual.norm(dim=1), width))
    residual = variables.centre[there] - variables.centre[here]
    move = torch.cat([zero, -first, zero, second], 2)
    by_move = weight * norm_weight(residual.norm(dim=1), TURN_TO_MOVE * width)
    more_hessian, more_gradient = _normal(move, residual, by_move)
    return Blocks(unknowns, hessian + more_hessian, gradient + more_gradient)


def linearise_trajectories(
    rows: TrajectoryRows, variables: Variables, columns: Columns, width: float
) -> Blocks:
    """Of each row: its camera of the world against the one of its trajectory.

    Args:
        width: as for ``linearise_smoothness``.
    """
    unknowns = torch.cat([columns.camera[rows.frame.cpu()], columns.trajectory[rows.trajectory.cpu()]], 1)
    rotation, centre = rows.moved(variables)
    camera = variables.rotation[rows.frame]
    residual, _, by_camera = terms.linearised_rotation(rotation, camera)
    zero = torch.zeros_like(rotation)
    turn = torch.cat([by_camera, zero, -(2**0.5) * camera.mT, zero[..., :1], zero], 2)
    hessian, gradient = _normal(turn, residual, rows.weight * norm_weight(residual.norm(dim=1), width))
    residual = variables.centre[rows.frame] - centre
    arm = centre - variables.trajectory_translation[rows.trajectory]
    identity = torch.eye(3, dtype=arm.dtype, device=arm.device).expand_as(zero)
    move = torch.cat([zero, camera, skew(arm), -arm[..., None], -identity], 2)
    by_move = rows.weight * norm_weight(residual.norm(dim=1), TURN_TO_MOVE * width)
    more_hessian, more_gradient = _normal(move, residual, by_move)
    return Blocks(unknowns, hessian + more_hessian, gradient + more_gradient)


def linearise_focal(variables: Variables, weight: float, columns: Columns) -> Blocks:
    """Of the second differences of the log focal length.

    Args:
        weight: of the term.
    """
    unknowns = torch.stack([columns.focal[:-2], columns.focal[1:-1], columns.focal[2:]], 1)
    residual = variables.log_focal.diff(n=2)[:, None]
    jacobian = torch.tensor([[1.0, -2.0, 1.0]], dtype=torch.float64, device=residual.device)
    weights = torch.full_like(residual[:, 0], weight)
    hessian, gradient = _normal(jacobian.expand(len(residual), 1, 3), residual, weights)
    return Blocks(unknowns, hessian, gradient)


def _normal(jacobian: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """J^T w J and J^T w r of a batch of residual vectors."""
    weighted = weight[:, None, None] * jacobian
    return weighted.mT @ jacobian, (weighted.mT @ residual[..., None])[..., 0]
