"""A furnished room, seen from inside."""

import numpy as np

from geo4d.synthetic import objects
from geo4d.synthetic.layouts.common import moved_to, someone
from geo4d.synthetic.layouts.plan import Plan
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_y, translation
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.shapes import BOX


def room(builder: SceneBuilder, config: SceneConfig, focal: float) -> Plan:
    """The inside of a furnished room, with a lamp in most."""
    rng = builder.rng
    wide, deep, tall = rng.uniform(1.8, 5.0), rng.uniform(1.8, 6.0), rng.uniform(2.3, 4.0)
    lamp = None
    if rng.rand() < 0.75:
        lamp = np.array([rng.uniform(-0.7, 0.7) * wide, -tall * 0.92, rng.uniform(-0.7, 0.7) * deep])
    _shell(builder, wide, deep, tall)
    _furnish(builder, wide, deep)
    position = np.array(
        [
            rng.uniform(-0.85, 0.85) * wide,
            -rng.uniform(0.6, min(2.0, tall - 0.4)),
            rng.uniform(-0.9, -0.1) * deep,
        ]
    )
    aim = np.array([rng.normal(0.0, 0.4) * wide, 0.0, 0.25 * deep])
    yaw = float(np.arctan2(aim[0] - position[0], aim[2] - position[2])) + rng.normal(0.0, 0.2)
    inside = np.array([0.8 * wide, 0.0, 0.8 * deep])
    _company(builder, position, yaw, inside)
    return Plan(
        position=position,
        yaw=yaw,
        pitch=rng.normal(-0.12, 0.12),
        speed=float(np.exp(rng.normal(-0.9, 0.6))),
        extent=1.2,
        target=np.broadcast_to(aim + np.array([0.0, -0.8, 0.0]), (config.num_frames, 3)),
        follow=bool(rng.rand() < 0.3),
        indoor=True,
        lamp=lamp,
        low=np.array([-wide + 0.25, -tall + 0.25, -deep + 0.25]),
        high=np.array([wide - 0.25, -0.15, deep - 0.25]),
    )


def _shell(builder: SceneBuilder, wide: float, deep: float, tall: float) -> None:
    """Floor, ceiling, and walls, of which one or the other is missing."""
    rng = builder.rng
    walls = builder.bank.choose(rng, "wall" if rng.rand() < 0.4 else "plain")
    wall_tint, wall_scale = np.clip(0.9 + rng.normal(0.0, 0.12, 3), 0.4, 1.3), 2.0 ** rng.uniform(-2.5, -0.3)
    builder.begin_object()
    builder.add(
        BOX, (0, 0.1, 0), (wide * 1.05, 0.1, deep * 1.05), category="ground", texture_scale=2.0 ** rng.uniform(-1.5, 0.5),
        shadow=False,
    )  # fmt: skip
    builder.begin_object()
    builder.add(
        BOX,
        (0, -tall - 0.1, 0),
        (wide, 0.1, deep),
        category="plain",
        emission=0.12,
        specular=0.0,
        shadow=False,
    )
    for axis, sign in ((0, -1.0), (0, 1.0), (2, -1.0), (2, 1.0)):
        if rng.rand() < 0.06:
            continue
        other, reach, span = 2 - axis, (wide, 0.0, deep)[axis], (wide, 0.0, deep)[2 - axis]
        centre, half = np.array([0.0, -0.5 * tall, 0.0]), np.array([wide, 0.5 * tall, deep])
        centre[axis], half[axis] = sign * (reach + 0.1), 0.1
        builder.begin_object()
        texture = walls if rng.rand() < 0.8 else builder.bank.choose(rng, "wall")
        builder.add(
            BOX,
            centre,
            half,
            texture=texture,
            texture_scale=wall_scale,
            tint=wall_tint,
            specular=0.0,
            shadow=False,
        )
        skirting = half.copy()
        skirting[1], skirting[axis] = 0.05, 0.115
        builder.add(
            BOX, (centre[0], -0.05, centre[2]), skirting, tint=wall_tint * 0.8, category="plain", shadow=False
        )
        for _ in range(rng.randint(0, 4)):  # windows, doors, pictures
            item, extent = centre.copy(), np.full(3, 0.03)
            item[axis] = sign * reach
            extent[other], extent[1] = rng.uniform(0.12, 0.8), rng.uniform(0.12, 0.7)
            item[other] = rng.uniform(-0.8, 0.8) * span
            item[1] = -rng.uniform(0.7, tall - 0.4)
            glow, category = 0.0, "any"
            if rng.rand() < 0.3:
                glow, category = rng.uniform(0.3, 0.8), "plain"
            elif rng.rand() < 0.3:  # door
                extent[other], extent[1], item[1], category = 0.45, 1.02, -1.02, "plain"
            builder.add(
                BOX,
                item,
                extent,
                category=category,
                emission=glow,
                texture_scale=2.0 ** rng.uniform(-1, 1),
                shadow=False,
            )


def _furnish(builder: SceneBuilder, wide: float, deep: float) -> None:
    rng = builder.rng
    for _ in range(rng.randint(3, 10)):
        place = np.array([rng.uniform(-0.88, 0.88) * wide, 0.0, rng.uniform(-0.88, 0.88) * deep])
        kind = rng.rand()
        if kind < 0.22:
            objects.table(builder, place, rng.uniform(0, 6.3), rng.uniform(0.4, 0.95))
        elif kind < 0.45:
            objects.chair(builder, place, rng.uniform(0, 6.3))
        elif kind < 0.62:
            if rng.rand() < 0.5:
                place[0] = rng.choice([-1.0, 1.0]) * (wide - 0.3)
                objects.shelf(builder, place, -np.sign(place[0]) * 0.5 * np.pi)
            else:
                place[2] = rng.choice([-1.0, 1.0]) * (deep - 0.3)
                objects.shelf(builder, place, 0.0 if place[2] < 0 else np.pi)
        elif kind < 0.7:
            builder.begin_object()  # bed, chest, carpet
            high = rng.choice([0.01, rng.uniform(0.15, 0.35)])
            builder.add(
                BOX, place - np.array([0.0, high, 0.0]), (rng.uniform(0.5, 1.0), high, rng.uniform(0.6, 1.1)),
                rotation=rotation_y(rng.choice([0.0, 0.5 * np.pi]) + rng.normal(0, 0.05)), category="cloth",
            )  # fmt: skip
        elif kind < 0.76:
            objects.tree(builder, place, rng.uniform(0.5, 1.8))
        else:
            objects.clutter(builder, translation(place), rng.uniform(0.15, 0.9))


def _company(builder: SceneBuilder, position: np.ndarray, yaw: float, inside: np.ndarray) -> None:
    """People, animals and toys in front of a camera at ``position`` ``[3]``, not beyond ``inside`` ``[3]``."""
    rng = builder.rng
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        ahead = rng.uniform(1.4, 4.0)
        bearing = yaw + rng.normal(0.0, 0.3)
        place = position + ahead * np.array([np.sin(bearing), 0.0, np.cos(bearing)])
        place = np.clip(place, -inside, inside)
        place[1] = 0.0
        kind = rng.rand()
        if kind < 0.65:
            someone(
                builder,
                place,
                rng.uniform(0, 6.3),
                speed=rng.choice([0.0, rng.uniform(0.2, 1.2)]),
                centred=True,
            )
        elif kind < 0.85:
            speed = rng.choice([0.0, rng.uniform(0.2, 1.2)])
            motion = moved_to(builder, place, rng.uniform(0, 6.3), speed, rng.normal(0, 0.6), True)
            objects.animal(builder, motion, speed, rng.uniform(0.25, 0.6))
        else:
            objects.toy(builder, translation(place), rng.uniform(0.2, 1.4))
