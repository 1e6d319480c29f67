"""Seed -> scene: a layout places things, a path leads the camera, light and development are drawn."""

import numpy as np

from geo4d.synthetic.camera_paths import PathStart, camera_path
from geo4d.synthetic.layouts import LAYOUTS
from geo4d.synthetic.layouts.plan import Plan
from geo4d.synthetic.layouts.terrain import terrain_height
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.scene import Development, Scene, SceneConfig
from geo4d.synthetic.textures import random_stream, texture_bank


def draw_scene(config: SceneConfig, attempt: int) -> Scene:
    """One draw of a scene, acceptable or not (``render.make_scene`` repeats until one is)."""
    rng = random_stream(config.seed, 1000 + attempt)
    bank = texture_bank(config.bank)
    times = np.arange(config.num_frames) / config.fps
    builder = SceneBuilder(rng, bank, times)
    focal = 0.5 / np.tan(0.5 * np.deg2rad(rng.uniform(35.0, 95.0)))
    layout = LAYOUTS[config.kind]
    plan = layout(builder, config, focal)
    start = PathStart(plan.position, plan.yaw, plan.pitch, plan.speed, plan.extent, plan.target, plan.follow)
    c2w = camera_path(rng, config.camera, times, start)
    if plan.low is not None and plan.high is not None:
        c2w[:, :3, 3] = np.clip(c2w[:, :3, 3], plan.low, plan.high)
    if len(builder.terrain):
        ground = terrain_height(builder.terrain, c2w[:, 0, 3], c2w[:, 2, 3])
        c2w[:, 1, 3] = np.minimum(c2w[:, 1, 3], -ground - 0.4)
    factor = np.ones(len(times))
    if config.zoom:
        ease = np.sin(0.5 * np.pi * times / max(times[-1], 1e-6))
        factor = rng.uniform(1.2, 2.0) ** (rng.choice([-1.0, 1.0]) * ease)
    return _freeze(builder, plan, config, attempt, c2w, np.clip(focal * factor, 0.35, 3.0))


def _freeze(
    builder: SceneBuilder, plan: Plan, config: SceneConfig, attempt: int, c2w: np.ndarray, focal: np.ndarray
) -> Scene:
    rng, bank = builder.rng, builder.bank
    group = np.array(builder.group)
    motions = np.stack(builder.groups, 1)[:, group]
    l2w = np.ascontiguousarray(motions @ np.stack(builder.local))
    moves = np.array([bool(np.abs(motion - motion[0]).max() > 1e-9) for motion in builder.groups])
    object_first = np.array([*builder.object_first, len(builder.shape)], np.int64)
    light = np.array([rng.normal(), -abs(rng.normal()) - 0.35, rng.normal()])
    light = light / np.linalg.norm(light) if plan.lamp is None else plan.lamp
    daylight = rng.uniform(0.35, 1.15)
    cast = np.clip(1.0 + rng.normal(0.0, 0.1, (3, 3)), 0.4, 1.5) * daylight
    horizon = np.array([0.80, 0.85, 0.90]) * cast[0]
    zenith = np.array([0.28, 0.50, 0.90]) * cast[1]
    if rng.rand() < 0.3:  # overcast
        zenith = horizon * rng.uniform(0.75, 1.05)
    cloud_level, cloud_contrast = rng.uniform(0.25, 0.75), rng.uniform(1.5, 6.0)
    if rng.rand() < 0.3:  # clear
        cloud_contrast = 0.0
    development = Development(
        factor=0.85 * np.exp(rng.normal(-0.05, 0.25)),
        gains=np.clip(1.0 + rng.normal(0.0, 0.05, 3), 0.8, 1.2),
        gamma=rng.uniform(1.0, 2.2),
        contrast=rng.uniform(0.6, 1.2) if rng.rand() < 0.35 else 1.0,
        pivot=0.45 + rng.normal(0.0, 0.08),
        saturation=rng.uniform(0.0, 1.0) if rng.rand() < 0.25 else rng.uniform(0.9, 1.2),
        noise=rng.choice([0.0, 0.004, 0.008, 0.02]),
        noise_seed=int(rng.randint(2**31 - 1)),
    )
    return Scene(
        config=config,
        attempt=attempt,
        times_s=builder.times_s,
        c2w=c2w,
        focal=focal,
        l2w=l2w,
        w2l=np.linalg.inv(l2w),
        shape=np.array(builder.shape, np.int64),
        size=np.stack(builder.size),
        offset=np.stack(builder.offset),
        tint=np.stack(builder.tint).astype(np.float64),
        texture=np.array(builder.texture, np.int64),
        texture_scale=np.array(builder.texture_scale, np.float64),
        cutout=np.array(builder.cutout, np.float64),
        specular=np.array(builder.specular, np.float64),
        emission=np.array(builder.emission, np.float64),
        shadow=np.array(builder.shadow, bool),
        object_first=object_first,
        terrain=np.ascontiguousarray(builder.terrain),
        object_of=np.searchsorted(object_first, np.arange(len(builder.shape)), side="right"),
        dynamic=moves[group],
        subjects=tuple(plan.subjects),
        light=light.astype(np.float64),
        is_lamp=plan.lamp is not None,
        ambient=rng.uniform(0.35, 0.7) if plan.indoor else rng.uniform(0.22, 0.6),
        fog=0.0
        if plan.indoor or rng.rand() < 0.6
        else float(np.exp(rng.uniform(np.log(1e-3), np.log(2.5e-2)))),
        horizon=horizon,
        zenith=zenith,
        cloud=np.full(3, 0.95) * cast[2],
        cloud_texture=bank.choose(rng, "any"),
        cloud_level=cloud_level,
        cloud_contrast=cloud_contrast,
        development=development,
    )
