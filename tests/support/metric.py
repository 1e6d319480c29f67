"""Aligned cameras and given poses, made by hand."""

import torch

from geo4d.fusion.alignment import AlignConfig, Alignment
from geo4d.run.frame_poses import FramePoses


def given_poses(c2w: torch.Tensor) -> FramePoses:
    return FramePoses(c2w, {"file": "made by hand"}, "poses made by hand")


def alignment_of(c2w: torch.Tensor, scene: torch.Tensor) -> Alignment:
    """Cameras only; nothing that dense maps would need."""
    nothing, no_window = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    return Alignment(
        intrinsics=torch.eye(3).expand(len(c2w), 3, 3),
        c2w=c2w,
        window_similarity=torch.zeros(0, 4, 4),
        window_weight=nothing,
        disparity_scale=nothing,
        disparity_shift=nothing,
        disparity_weight=nothing,
        point_unit=nothing,
        trajectory_window=no_window,
        trajectory_similarity=torch.zeros(0, 4, 4),
        window_frames=(),
        reliable=torch.ones(len(c2w), dtype=torch.bool),
        scene=scene,
        point_frame="window",
        scale_kind="scale",
        size=(4, 4),
        config=AlignConfig(),
    )
