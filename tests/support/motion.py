"""Cameras as tracks would give them, made up."""

import torch

from geo4d.cameras.types import MotionCameras, ShotMotion
from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.poses import so3_exp

SIZE = (90, 160)


def shot(start: int, stop: int, kind: str) -> ShotMotion:
    return ShotMotion(start, stop, kind, 150.0, 0.01, 8.0, 0.1, 100, 0.2, "")  # type: ignore[arg-type]


def moving_camera(confidence: list[float], shots: list[ShotMotion]) -> MotionCameras:
    """Steps of 0.1 to the right and 0.02 rad of yaw a frame."""
    count = len(confidence)
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    c2w[:, 0, 3] = 0.1 * torch.arange(count)
    yaw = torch.zeros(count, 3, dtype=torch.float64)
    yaw[:, 1] = 0.02 * torch.arange(count)
    c2w[:, :3, :3] = so3_exp(yaw)
    return MotionCameras(
        c2w=c2w,
        intrinsics=centred_intrinsics(torch.full((count,), 150.0), SIZE),
        size=SIZE,
        confidence=torch.tensor(confidence),
        shots=tuple(shots),
        points=torch.zeros(0, 3),
        point_shot=torch.zeros(0, dtype=torch.long),
        depth_range=torch.ones(count, 2),
    )
