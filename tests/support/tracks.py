"""Tracks of simulated points along a known path, and the error of cameras against it."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import rotation_angle, transform
from geo4d.tracks.types import Tracks


def simulated_tracks(scene, num_points=220, noise=0.15, seed=0, moving=0.0, size=(480, 640), wide=1.0):
    """Exact projections of points in front of the cameras, with noise; a share moves on its own."""
    g = torch.Generator().manual_seed(seed)
    T = len(scene.c2w)
    points = torch.rand(num_points, 3, generator=g, dtype=torch.float64) * torch.tensor(
        [5.0 * wide, 3.0, 3.0]
    )
    points += torch.tensor([-2.5, -1.5, 2.0])
    drift = torch.randn(num_points, 3, generator=g, dtype=torch.float64) * 0.06
    drift[int(moving * num_points) :] = 0
    world = points[None] + drift * torch.arange(T, dtype=torch.float64)[:, None, None]
    camera = (torch.linalg.inv(scene.c2w)[:, None, :3, :3] @ world[..., None])[..., 0]
    camera += torch.linalg.inv(scene.c2w)[:, None, :3, 3]
    xy = (camera @ scene.intrinsics.double().mT)[..., :2] / camera[..., 2:]
    xy = xy + noise * torch.randn(xy.shape, generator=g, dtype=torch.float64)
    inside = (camera[..., 2] > 0.2) & (xy >= 0).all(-1) & (xy[..., 0] < size[1]) & (xy[..., 1] < size[0])
    inside &= inside.sum(0) >= 2
    track, frame = inside.T.nonzero(as_tuple=True)
    _, track = track.unique(return_inverse=True)
    starts = torch.zeros(T, dtype=torch.bool)
    starts[0] = True
    return Tracks(track, frame, xy.transpose(0, 1)[inside.T].float(), T, size, starts)


class Path:
    """``zoom``: the focal length of the last frame over that of the first; it grows by the same factor in every frame."""

    def __init__(self, c2w, focal, zoom=1.0, size=(480, 640)):
        self.c2w = c2w
        K = torch.tensor([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])
        self.intrinsics = K.repeat(len(c2w), 1, 1)
        self.intrinsics[:, [0, 1], [0, 1]] *= zoom ** torch.linspace(0, 1, len(c2w))[:, None]


def path(num_frames=14, travel=1.0, turn=0.3, forward=0.0, focal=520.0, zoom=1.0):
    s = np.linspace(0, 1, num_frames)
    c2w = np.tile(np.eye(4), (num_frames, 1, 1))
    c2w[:, :3, :3] = Rotation.from_rotvec(
        np.stack([0.2 * turn * np.sin(4 * s), turn * s, 0 * s], 1)
    ).as_matrix()
    c2w[:, :3, 3] = np.stack([travel * s, 0.2 * travel * np.sin(5 * s), forward * s], 1)
    return Path(torch.from_numpy(c2w), focal, zoom)


def rotation_error(motion, scene):
    """Largest error of the rotations relative to the first camera, degrees."""
    first = motion.c2w[0, :3, :3].T @ motion.c2w[:, :3, :3]
    first_truth = scene.c2w[0, :3, :3].T @ scene.c2w[:, :3, :3]
    return float(rotation_angle(first.mT @ first_truth).max() * 57.3)


def trajectory_error(motion, scene):
    """RMSE of centres after a similarity, and largest rotation error in degrees."""
    centres, truth = motion.c2w[:, :3, 3], scene.c2w[:, :3, 3]
    aligned = transform(fit_similarity(centres, truth), centres)
    return float((aligned - truth).square().sum(1).mean().sqrt()), rotation_error(motion, scene)
