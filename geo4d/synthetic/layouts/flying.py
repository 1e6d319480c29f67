"""Shapes that hang and turn in the air."""

import numpy as np

from geo4d.synthetic.camera_paths import smooth_noise, travel
from geo4d.synthetic.layouts.common import ground
from geo4d.synthetic.layouts.plan import Plan
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_x, rotation_y, rotation_z, translation
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.shapes import BOX, CONE, CYLINDER, SPHERE
from geo4d.synthetic.textures import random_colors


def flying(builder: SceneBuilder, config: SceneConfig, focal: float) -> Plan:
    """Many things in the air at all distances, some of them moving, sometimes inside a box or above a floor."""
    rng, times = builder.rng, builder.times_s
    if rng.rand() < 0.6:  # inside of a huge box
        builder.begin_object()
        builder.add(
            BOX, (0, 0, 10), rng.uniform(9.0, 25.0, 3) + np.array([0, 0, 10]), texture_scale=0.2, shadow=False
        )
    if rng.rand() < 0.5:
        ground(builder, rng.uniform(1.0, 3.0))
    for _ in range(rng.randint(10, 28)):
        z = float(np.exp(rng.uniform(0.7, 3.0)))
        x, y = rng.normal(0.0, 0.45, 2) * z
        half = z * rng.uniform(0.04, 0.2) * np.exp(rng.normal(-0.2, 0.4, 3))
        motion = translation([x, y, z]) @ rotation_y(rng.uniform(0, 6.3)) @ rotation_x(rng.uniform(0, 6.3))
        if rng.rand() < 0.35:
            spin = smooth_noise(rng, times, 0.2, 2) * rng.uniform(0.1, 1.0)
            drift = travel(times, 0.12 * z, 0.5 * z)[:, None] * rng.normal(0.0, 0.6, 3)
            motion = translation(drift) @ motion @ rotation_y(spin[:, 0]) @ rotation_z(spin[:, 1])
        builder.begin_object()
        shape = (SPHERE, BOX, CYLINDER, CONE)[rng.randint(4)]
        group = builder.moving(motion)
        color = random_colors(rng, 1)[0] * 0.6 + 0.5
        builder.add(shape, (0, 0, 0), half, group, tint=color, cutout=0.45 if rng.rand() < 0.1 else -1.0)
    return Plan(
        position=np.zeros(3),
        yaw=rng.normal(0.0, 0.15),
        pitch=rng.normal(0.0, 0.1),
        speed=float(np.exp(rng.normal(-0.5, 0.6))),
        extent=1.5,
        target=np.broadcast_to(np.array([0.0, 0.0, 6.0]), (config.num_frames, 3)),
    )
