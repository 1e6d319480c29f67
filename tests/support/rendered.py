"""Scenes of every layout, and where their points are."""

import numpy as np
import torch

from geo4d.synthetic.layouts import LAYOUTS
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.render import make_scene
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.textures import random_stream, texture_bank

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


def laid_out(kind, seed, camera="handheld", num_frames=9):
    """What a layout draws for a seed: the things it placed, its plan, and the configuration."""
    config = SceneConfig(seed=seed, kind=kind, camera=camera, num_frames=num_frames)
    builder = SceneBuilder(
        random_stream(seed, 1000), texture_bank("train"), np.arange(num_frames) / config.fps
    )
    return builder, LAYOUTS[kind](builder, config, 1.0), config


def places(builder):
    """[T, N, 3] centres of all primitives in the world."""
    motions = np.stack(builder.groups, 1)[:, np.array(builder.group)]
    return (motions @ np.stack(builder.local))[:, :, :3, 3]
