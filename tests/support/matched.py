"""What several tests share."""

import torch

from geo4d.geometry.cameras import project
from geo4d.geometry.poses import relative, transform


def where_they_go(scene, frame, other, xy):
    """Exact places in another frame of points of a still scene."""
    depth = scene.depth[frame, xy[:, 1].long(), xy[:, 0].long()].double()
    K = scene.intrinsics[frame].double()
    rays = torch.cat([xy.double(), torch.ones(len(xy), 1, dtype=torch.float64)], 1) @ torch.linalg.inv(K).T
    moved = transform(relative(scene.c2w[other], scene.c2w[frame]), rays * depth[:, None])
    return project(moved, scene.intrinsics[other].double())[0]
