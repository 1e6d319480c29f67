"""Hills with trees, stones and walkers."""

import numpy as np

from geo4d.synthetic import objects
from geo4d.synthetic.layouts.common import moved_to
from geo4d.synthetic.layouts.plan import Plan
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_x, rotation_y, translation
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.shapes import SPHERE, TERRAIN


def terrain_height(waves: np.ndarray, x: np.ndarray | float, z: np.ndarray | float) -> np.ndarray | float:
    """Height of the waves at (x, z), metres, positive upwards.

    Args:
        waves: [K, 4] angular frequency along x and along z (1/m), amplitude (m), phase.
    """
    phase = (
        np.multiply.outer(np.asarray(x), waves[:, 0])
        + np.multiply.outer(np.asarray(z), waves[:, 1])
        + waves[:, 3]
    )
    return (waves[:, 2] * np.sin(phase)).sum(-1)


def terrain(builder: SceneBuilder, config: SceneConfig, focal: float) -> Plan:
    """Rolling land of a few waves, with things standing on it."""
    rng = builder.rng
    count = rng.randint(4, 8)
    length = np.exp(rng.uniform(np.log(4.0), np.log(90.0), count))
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    waves = np.stack(
        [
            2.0 * np.pi / length * np.sin(angle),
            2.0 * np.pi / length * np.cos(angle),
            length * rng.uniform(0.01, 0.035, count),
            rng.uniform(0.0, 2.0 * np.pi, count),
        ],
        -1,
    )
    builder.terrain = waves

    def on_ground(x: float, z: float) -> np.ndarray:
        return np.array([x, -float(terrain_height(waves, x, z)), z])

    builder.begin_object()
    builder.add(
        TERRAIN, (0, 0, 0), (1, 1, 1), category="ground" if rng.rand() < 0.5 else "foliage",
        texture_scale=2.0 ** rng.uniform(-3.0, -0.5), specular=0.0, shadow=False,
    )  # fmt: skip
    for _ in range(rng.randint(4, 18)):
        place = on_ground(rng.uniform(-16.0, 16.0), rng.uniform(2.5, 42.0))
        kind = rng.rand()
        if kind < 0.55:
            objects.tree(builder, place + np.array([0.0, 0.1, 0.0]), rng.uniform(0.8, 8.0))
        elif kind < 0.75:
            builder.begin_object()
            radius = rng.uniform(0.2, 1.6)
            half = radius * np.exp(rng.normal(0.0, 0.25, 3))
            builder.add(
                SPHERE, place, half, rotation=rotation_y(rng.uniform(0, 6.3)) @ rotation_x(rng.normal(0, 0.3))
            )
        elif kind < 0.9:
            objects.clutter(builder, translation(place + np.array([0.0, 0.05, 0.0])), rng.uniform(0.3, 2.0))
        else:
            half = np.array([rng.uniform(1.0, 3.0), rng.uniform(1.0, 2.0), rng.uniform(1.0, 3.0)])
            objects.house(builder, place + np.array([0.0, 0.4, 0.0]), half, rng.uniform(0, 6.3))
    for _ in range(rng.randint(0, 4)):
        spot = on_ground(rng.uniform(-3.0, 3.0), rng.uniform(3.0, 12.0))
        speed = rng.choice([0.0, rng.uniform(0.4, 2.5)])
        motion = moved_to(builder, spot, rng.uniform(0, 6.3), speed, rng.normal(0, 0.3), True)
        heights = terrain_height(waves, motion[:, 0, 3], motion[:, 2, 3])
        motion = translation(np.stack([0 * heights, -heights - motion[:, 1, 3], 0 * heights], -1)) @ motion
        if rng.rand() < 0.55:
            objects.person(builder, motion, speed, rng.uniform(1.5, 1.9))
        else:
            objects.animal(builder, motion, speed, rng.uniform(0.4, 1.5))
    eye = rng.uniform(0.6, 4.0)
    position = on_ground(0.0, 0.0) - np.array([0.0, eye, 0.0])
    driving = config.camera == "driving"
    return Plan(
        position=position,
        yaw=rng.normal(0.0, 0.3),
        pitch=rng.normal(-0.1, 0.08),
        speed=rng.uniform(1.5, 6.0) if driving else float(np.exp(rng.normal(0.0, 0.7))),
        extent=20.0 if driving else 5.0,
        target=np.broadcast_to(on_ground(0.0, 8.0), (config.num_frames, 3)),
    )
