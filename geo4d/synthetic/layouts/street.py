"""A road between houses, with parked and moving cars and people."""

import numpy as np

from geo4d.synthetic import objects
from geo4d.synthetic.layouts.common import backdrop, ground, moved_to, someone
from geo4d.synthetic.layouts.plan import Plan
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_y, translation
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.shapes import BOX


def street(builder: SceneBuilder, config: SceneConfig, focal: float) -> Plan:
    """A road between houses, with things and traffic along it."""
    rng = builder.rng
    ground(builder)
    half = rng.uniform(3.5, 11.0)
    road = half * rng.uniform(0.45, 0.85)
    builder.begin_object()
    grey = np.clip(rng.uniform(0.25, 0.9) + rng.normal(0.0, 0.03, 3), 0.1, 1.0)
    builder.add(
        BOX, (0, -0.01, 0), (road, 0.02, 300), category="ground", texture_scale=2.0 ** rng.uniform(-2, 0), tint=grey,
        specular=0.0, shadow=False,
    )  # fmt: skip
    if rng.rand() < 0.6:  # middle line
        builder.begin_object()
        for k in range(rng.randint(4, 10)):
            builder.add(
                BOX, (0, -0.025, 3.0 + 7.0 * k), (0.08, 0.012, 1.5), category="plain", tint=np.full(3, 1.2), specular=0.0,
                shadow=False,
            )  # fmt: skip
    for side in (-1.0, 1.0):
        if rng.rand() < 0.1:
            continue
        z = -12.0
        while z < 95.0:
            long, deep = rng.uniform(3.0, 11.0), rng.uniform(2.0, 6.0)
            z += long
            x = side * (half + deep + rng.uniform(0.0, 2.0))
            kind = rng.rand()
            if kind < 0.72:
                tall = rng.uniform(1.5, 8.0)
                objects.house(builder, np.array([x, 0.0, z]), np.array([deep, tall, long]), 0.0)
            elif kind < 0.85:
                objects.tree(
                    builder, np.array([side * (half + rng.uniform(0.5, 3.0)), 0.0, z]), rng.uniform(2.5, 9.0)
                )
            else:
                builder.begin_object()
                builder.add(BOX, (x, -0.6, z), (deep, 0.6, long), category="wall", texture_scale=0.7)
            z += long + rng.choice([0.0, rng.uniform(0.0, 6.0)])
        for _ in range(rng.randint(1, 7)):
            place = np.array([side * half * rng.uniform(0.72, 0.97), 0.0, rng.uniform(2.5, 45.0)])
            kind = rng.rand()
            if kind < 0.25:
                objects.tree(builder, place, rng.uniform(2.0, 7.0))
            elif kind < 0.42:
                objects.pole(builder, place, rng.uniform(2.5, 6.5))
            elif kind < 0.72:
                yaw = rng.choice([0.0, np.pi]) + rng.normal(0.0, 0.04)
                objects.car(builder, translation(place) @ rotation_y(yaw), 0.0)
            elif kind < 0.8:
                objects.clutter(builder, translation(place), rng.uniform(0.4, 1.2))
            else:
                someone(builder, place, rng.choice([0.0, np.pi]) + rng.normal(0.0, 0.3))
    middle = np.array([rng.normal(0.0, 0.2) * half, 0.0, rng.uniform(4.0, 12.0)])
    for _ in range(rng.randint(0, 5)):
        place = np.array([rng.uniform(-0.7, 0.7) * half, 0.0, rng.uniform(3.5, 28.0)])
        if rng.rand() < 0.5:
            speed = rng.uniform(1.0, 9.0)
            heading = 0.0 if place[0] > 0.0 else np.pi
            motion = moved_to(
                builder, place, heading + rng.normal(0, 0.05), speed, rng.normal(0.0, 0.03), False
            )
            objects.car(builder, motion, speed)
        elif rng.rand() < 0.8:
            someone(builder, place, rng.uniform(0.0, 6.3))
        else:
            speed = rng.uniform(0.3, 2.5)
            motion = moved_to(builder, place, rng.uniform(0, 6.3), speed, rng.normal(0.0, 0.4), False)
            objects.animal(builder, motion, speed, rng.uniform(0.3, 1.2))
    if rng.rand() < 0.5:
        backdrop(builder, middle)
    driving = config.camera == "driving"
    return Plan(
        position=np.array([rng.uniform(-0.6, 0.6) * half, -rng.uniform(1.0, 2.2), rng.uniform(-4.0, 2.0)]),
        yaw=rng.normal(0.0, 0.08 if driving else 0.4),
        pitch=rng.normal(-0.06, 0.07),
        speed=rng.uniform(1.5, 9.0) if driving else float(np.exp(rng.normal(0.0, 0.7))),
        extent=30.0 if driving else 4.0,
        target=np.broadcast_to(middle + np.array([0.0, -1.0, 0.0]), (config.num_frames, 3)),
        low=np.array([-half, -8.0, -30.0]),
        high=np.array([half, -0.4, 80.0]),
    )
