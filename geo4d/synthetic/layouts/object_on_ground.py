"""One subject that fills a wanted share of the picture, in a studio or outdoors."""

import numpy as np

from geo4d.synthetic import objects
from geo4d.synthetic.layouts.common import across, backdrop, ground, moved_to, someone
from geo4d.synthetic.layouts.plan import Plan
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_y, translation
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.shapes import BOX


def object_on_ground(builder: SceneBuilder, config: SceneConfig, focal: float) -> Plan:
    """A subject on a floor with a few things and people around it, outdoors or in a studio."""
    rng = builder.rng
    ground(builder)
    studio = rng.rand() < 0.25
    builder_first = len(builder.object_first) + 1
    spot, size, motion = _add_subject(builder, config, focal)
    subjects = list(range(builder_first, len(builder.object_first) + 1))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        near = spot + np.array([rng.normal(0.0, 1.2), 0.0, rng.uniform(-0.3, 3.0)]) * max(1.0, 0.25 * spot[2])
        if near[2] > 0.6 * spot[2]:
            someone(builder, near, across(rng))
    for _ in range(rng.randint(0, 5)):
        near = spot + rng.normal(0.0, 1.0, 3) * np.array([1.0, 0.0, 0.6]) * max(0.8, 0.35 * spot[2])
        if near[2] > 0.5 * spot[2]:
            thing = rng.uniform(0.1, 0.6)
            objects.clutter(builder, translation(near), thing)
    if studio:
        _add_studio(builder, spot, focal)
    else:
        _surroundings(builder, spot)
        backdrop(builder, spot)
    eye = float(np.clip(rng.uniform(0.25, 1.3) * size, 0.25, 2.4))
    centre = spot + np.array([0.0, -0.52 * size, 0.0])
    target = motion[:, :3, 3] + np.array([0.0, -0.52 * size, 0.0])
    position = np.array([0.0, -eye, 0.0])
    pitch = np.arctan2(eye + centre[1], spot[2]) * -1.0 + rng.normal(0.0, 0.05)
    return Plan(
        position=position,
        yaw=rng.normal(0.0, 0.06),
        pitch=pitch,
        speed=float(np.exp(rng.normal(-0.35, 0.8))) * max(0.5, min(spot[2], 6.0) / 4.0),
        extent=0.45 * spot[2],
        target=target,
        follow=bool(rng.rand() < 0.6),
        low=np.array([-300.0, -30.0, -300.0]),
        high=np.array([300.0, -0.2, 300.0]),
        subjects=subjects,
    )


def _add_subject(
    builder: SceneBuilder, config: SceneConfig, focal: float
) -> tuple[np.ndarray, float, np.ndarray]:
    """A person, an animal, a car or a toy at the distance at which it fills the wanted share of the height.

    Returns:
        ``[3]`` where it stands, its size in metres, and its motion ``[T, 4, 4]``.
    """
    rng = builder.rng
    style = rng.rand()
    share = rng.uniform(0.35, 1.15)
    side = rng.uniform(-0.25, 0.25)
    speed = 0.0 if rng.rand() < 0.2 else rng.uniform(0.3, 2.0)

    def spot_for(size: float) -> np.ndarray:
        distance = float(np.clip(size * focal / (share * config.aspect), 1.1, 22.0))
        return np.array([side * distance / focal, 0.0, distance])

    if style < 0.5:
        spot = spot_for(1.7)
        size, motion = someone(builder, spot, across(rng), centred=True)
    elif style < 0.72:
        size = rng.uniform(0.3, 1.6)
        spot = spot_for(size * 1.3)
        motion = moved_to(builder, spot, across(rng), speed, rng.normal(0.0, 0.5), True)
        objects.animal(builder, motion, speed, size)
    elif style < 0.86:
        size, speed = 1.5, speed * 3.0
        spot = spot_for(2.6)
        motion = moved_to(builder, spot, rng.uniform(0.0, 2.0 * np.pi), speed, rng.normal(0.0, 0.2), True)
        objects.car(builder, motion, speed)
    else:
        size = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
        spot = spot_for(size)
        motion = moved_to(
            builder, spot, across(rng), speed * rng.choice([0.0, 0.3, 1.0]), rng.normal(0.0, 0.5), True
        )
        objects.toy(builder, motion, size)
    return spot, size, motion


def _add_studio(builder: SceneBuilder, spot: np.ndarray, focal: float) -> None:
    """Walls close behind and beside ``spot``, with furniture along them."""
    rng = builder.rng
    back = spot[2] + rng.uniform(1.2, 6.0)
    builder.begin_object()
    tall = rng.uniform(1.2, 4.0)
    builder.add(
        BOX, (0, -tall, back + 0.2), (60, tall, 0.2), rotation=rotation_y(rng.normal(0.0, 0.15)), category="wall",
        texture_scale=2.0 ** rng.uniform(-2.5, -0.5), specular=0.0, shadow=False,
    )  # fmt: skip
    if rng.rand() < 0.5:
        builder.begin_object()
        x = rng.choice([-1.0, 1.0]) * (abs(spot[0]) + rng.uniform(1.5, 5.0))
        builder.add(
            BOX, (x, -tall, 0.5 * back), (0.2, tall, 30), category="wall", texture_scale=0.4, shadow=False
        )
    for _ in range(rng.randint(0, 6)):
        x = rng.uniform(-1.0, 1.0) * back / focal
        place = np.array([x, 0.0, back - rng.uniform(0.3, 0.8)])
        kind = rng.randint(4)
        if kind == 0:
            objects.shelf(builder, place, np.pi)
        elif kind == 1:
            objects.chair(builder, place, np.pi + rng.normal(0.0, 0.4))
        elif kind == 2:
            objects.tree(builder, place, rng.uniform(0.8, 3.0))
        else:
            objects.clutter(builder, translation(place), rng.uniform(0.3, 1.0))


def _surroundings(builder: SceneBuilder, spot: np.ndarray) -> None:
    """Trees, houses, cars, fences and people in a ring around ``spot``, denser behind it."""
    rng = builder.rng
    for _ in range(rng.randint(4, 18)):
        angle = rng.normal(0.0, 0.8) if rng.rand() < 0.7 else rng.uniform(0.0, 2.0 * np.pi)
        distance = np.exp(rng.uniform(np.log(2.5), np.log(45.0)))
        place = spot + distance * np.array([np.sin(angle), 0.0, np.cos(angle)])
        if np.hypot(place[0], place[2]) < 3.0 or (place[2] < spot[2] and abs(place[0]) < 1.5):
            continue
        kind = rng.rand()
        if kind < 0.35:
            objects.tree(builder, place, rng.uniform(1.0, 9.0))
        elif kind < 0.55 and distance > 6.0:
            half = np.array([rng.uniform(1.0, 6.0), rng.uniform(1.2, 7.0), rng.uniform(1.0, 6.0)])
            objects.house(builder, place + np.array([0.0, 0.0, half[2]]), half, rng.normal(0.0, 0.5))
        elif kind < 0.66 and distance > 4.0:
            objects.car(builder, translation(place) @ rotation_y(rng.uniform(0, 6.3)), 0.0)
        elif kind < 0.78:
            someone(builder, place, rng.uniform(0, 6.3))
        elif kind < 0.86:
            builder.begin_object()
            high = rng.uniform(0.3, 1.2)
            builder.add(
                BOX, place - np.array([0.0, high, 0.0]), (rng.uniform(1.0, 9.0), high, 0.08),
                rotation=rotation_y(rng.normal(0.0, 0.5)), category="wall", texture_scale=1.0,
            )  # fmt: skip
        elif kind < 0.92:
            objects.pole(builder, place, rng.uniform(2.0, 6.0))
        else:
            objects.clutter(builder, translation(place), rng.uniform(0.2, 1.2))
