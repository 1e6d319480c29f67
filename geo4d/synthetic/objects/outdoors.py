"""Cars, trees, houses, poles."""

import numpy as np

from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_x, rotation_y, rotation_z, translation
from geo4d.synthetic.shapes import BOX, CONE, CYLINDER, SPHERE
from geo4d.synthetic.textures import random_colors


def car(builder: SceneBuilder, motion: np.ndarray, speed: float) -> None:
    """Car, van or truck with turning wheels."""
    rng, times = builder.rng, builder.times_s
    long, wide = rng.uniform(1.7, 2.5), rng.uniform(0.8, 1.0)
    low = rng.uniform(0.28, 0.42)
    paint = builder.bank.choose(rng, "plain")
    color = np.clip(random_colors(rng, 1)[0] * 1.1 + 0.05, 0.03, 1.2)
    shine = rng.uniform(0.2, 0.8)
    glass = np.array([0.08, 0.10, 0.12]) * rng.uniform(0.6, 2.0)
    radius = rng.uniform(0.29, 0.38)
    builder.begin_object()
    group = builder.moving(motion)

    def part(
        shape: int, centre: list[float], half: list[float], tint: np.ndarray, specular: float = shine
    ) -> None:
        builder.add(
            shape, centre, half, group, texture=paint, texture_scale=0.3, tint=tint, specular=specular
        )

    part(BOX, [0, -0.28 - low, 0], [wide, low, long], color)
    style = rng.rand()
    top = -0.28 - 2.0 * low
    if style < 0.65:  # cabin
        tall, deep, back = (
            rng.uniform(0.24, 0.34),
            long * rng.uniform(0.42, 0.6),
            -long * rng.uniform(0.02, 0.25),
        )
        shape = BOX if rng.rand() < 0.6 else SPHERE
        part(shape, [0, top - tall, back], [wide * 0.86, tall * (1.0 if shape == BOX else 1.7), deep], glass)
        part(BOX, [0, top - 2.0 * tall, back], [wide * 0.84, 0.03, deep * 0.85], color)
    else:  # box van or truck
        tall = rng.uniform(0.5, 1.1)
        part(
            BOX,
            [0, top - tall, -0.2 * long],
            [wide, tall, 0.8 * long],
            color if style < 0.85 else color * 0 + 0.8,
        )
        part(BOX, [0, top - 0.3, 0.72 * long], [wide * 0.9, 0.3, 0.25 * long], glass)
    for end in (-1.0, 1.0):
        lamp = np.array([1.0, 0.95, 0.8]) if end > 0 else np.array([0.8, 0.05, 0.04])
        for side in (-1.0, 1.0):
            part(BOX, [side * 0.7 * wide, -0.35 - low, end * long], [0.16, 0.08, 0.03], lamp)
            roll = rotation_x(-speed / radius * times)
            wheel = builder.below(group, translation([side * 0.9 * wide, -radius, end * 0.64 * long]) @ roll)
            side_on = rotation_z(np.pi / 2.0)
            builder.add(
                CYLINDER, (0, 0, 0), (radius, 0.12, radius), wheel, side_on, texture=paint,
                tint=np.full(3, 0.07), specular=0.0,
            )  # fmt: skip
            builder.add(
                CYLINDER, (side * 0.02, 0, 0), (0.6 * radius, 0.115, 0.6 * radius), wheel, side_on, category="any",
                texture_scale=2.5, tint=np.full(3, 0.5), specular=0.3,
            )  # fmt: skip


def tree(builder: SceneBuilder, position: np.ndarray, height: float) -> None:
    """Leaf tree, conifer or bush standing at ``position`` (on the ground)."""
    rng = builder.rng
    x, y, z = position
    leaves = builder.bank.choose(rng, "foliage", surprise=0.05)
    green = np.clip(np.array([0.8, 1.0, 0.7]) * rng.uniform(0.6, 1.5) + rng.normal(0.0, 0.1, 3), 0.2, 1.6)
    bark = builder.bank.choose(rng, "plain")
    builder.begin_object()
    kind = rng.rand()
    trunk = 0.32 * height if kind < 0.8 else 0.05 * height
    builder.add(
        CYLINDER, (x, y - trunk, z), (0.025 * height + 0.03, trunk, 0.025 * height + 0.03), texture=bark,
        tint=np.array([0.45, 0.36, 0.27]) * rng.uniform(0.5, 1.3), specular=0.0,
    )  # fmt: skip
    scale = 2.0 ** rng.uniform(-1.5, 0.0)
    holes = rng.uniform(0.32, 0.52) if rng.rand() < 0.85 else -1.0
    if 0.55 < kind < 0.8:  # conifer
        for level in range(rng.randint(2, 5)):
            wide = height * (0.24 - 0.045 * level)
            tall = 0.2 * height
            centre = (x, y - height * (0.38 + 0.17 * level), z)
            builder.add(
                CONE, centre, (wide, tall, wide), texture=leaves, texture_scale=scale, tint=green * 0.7,
                cutout=holes, specular=0.0,
            )  # fmt: skip
        return
    blobs = rng.randint(2, 6) if kind < 0.8 else rng.randint(1, 4)
    middle = 0.72 if kind < 0.8 else 0.45
    for _ in range(blobs):
        radius = height * rng.uniform(0.14, 0.27) * (1.0 if kind < 0.8 else 1.6)
        centre = (
            x + rng.normal(0.0, 0.13 * height),
            y - height * (middle + rng.uniform(-0.16, 0.2) * (kind < 0.8)),
            z + rng.normal(0.0, 0.13 * height),
        )
        builder.add(
            SPHERE, centre, (radius, radius * rng.uniform(0.6, 1.2), radius),
            rotation=rotation_y(rng.uniform(0, 6.3)) @ rotation_x(rng.normal(0, 0.3)),
            texture=leaves, texture_scale=scale, tint=green * rng.uniform(0.8, 1.2), cutout=holes, specular=0.0,
        )  # fmt: skip


def house(builder: SceneBuilder, position: np.ndarray, half: np.ndarray, yaw: float) -> None:
    """Building: a textured block, sometimes with a roof, a door, a base or a balcony."""
    rng = builder.rng
    builder.begin_object()
    group = builder.moving(translation(position) @ rotation_y(yaw))
    wide, tall, deep = half
    wall = builder.bank.choose(rng, "wall", surprise=0.1)
    builder.add(
        BOX,
        (0, -tall, 0),
        half,
        group,
        texture=wall,
        texture_scale=2.0 ** rng.uniform(-3.5, -1.5),
        specular=0.0,
    )
    if tall < 4.5 and rng.rand() < 0.6:  # gable from a turned block
        roof = rotation_z(np.pi / 4.0)
        side = wide * 0.72
        builder.add(
            BOX,
            (0, -2.0 * tall, 0),
            (side, side, deep * 1.03),
            group,
            roof,
            category="wall",
            texture_scale=0.5,
        )
    if rng.rand() < 0.5:
        builder.add(
            BOX, (0, -rng.uniform(0.2, 0.6), 0), (wide * 1.02, 0.4, deep * 1.02), group, category="wall"
        )
    for _ in range(rng.randint(0, 4)):
        place = (
            rng.choice([-1, 1]) * wide,
            -2.0 * tall * rng.uniform(0.2, 0.9),
            rng.uniform(-0.8, 0.8) * deep,
        )
        builder.add(BOX, place, (rng.uniform(0.1, 0.6), rng.uniform(0.05, 0.6), rng.uniform(0.5, 1.5)), group)


def pole(builder: SceneBuilder, position: np.ndarray, height: float) -> None:
    """Lamp post or sign."""
    rng = builder.rng
    builder.begin_object()
    x, y, z = position
    tint = np.full(3, rng.uniform(0.1, 0.7))
    builder.add(CYLINDER, (x, y - 0.5 * height, z), (0.05, 0.5 * height, 0.05), category="plain", tint=tint)
    if rng.rand() < 0.5:
        builder.add(
            BOX,
            (x, y - 0.9 * height, z),
            (rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5), 0.02),
            texture_scale=1.0,
        )
    else:
        builder.add(BOX, (x + 0.4, y - height, z), (0.5, 0.05, 0.1), tint=tint)
        builder.add(
            SPHERE, (x + 0.8, y - height + 0.05, z), (0.2, 0.08, 0.12), tint=np.full(3, 1.0), emission=0.4
        )
