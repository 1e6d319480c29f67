"""Scenes of every layout, and where their points are."""

import torch

from geo4d.synthetic.render import make_scene
from geo4d.synthetic.scene import SceneConfig

SIZE = (36, 60)


def scene_of(kind, camera="handheld", seed=3, **more):
    return make_scene(
        SceneConfig(seed=seed, kind=kind, camera=camera, num_frames=more.pop("num_frames", 5), **more)
    )


def pixel_centres(size=SIZE):
    v, u = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    return u.double(), v.double()


def world_points(clip, t):
    """Points of frame t in the world; sky pixels end up very far away."""
    u, v = pixel_centres(clip.size)
    k, c2w = clip.intrinsics[t].double(), clip.c2w[t].double()
    z = torch.where(clip.valid[t], clip.depth[t].double(), 1e7)
    ray = torch.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], torch.ones_like(u)], -1)
    return (ray * z[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]


def project(points, clip, t):
    k, c2w = clip.intrinsics[t].double(), clip.c2w[t].double()
    camera = (points.double() - c2w[:3, 3]) @ c2w[:3, :3]
    z = camera[..., 2]
    u = camera[..., 0] / z * k[0, 0] + k[0, 2]
    v = camera[..., 1] / z * k[1, 1] + k[1, 2]
    return torch.stack([u, v], -1), z
