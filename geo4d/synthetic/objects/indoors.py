"""Furniture, toys, clutter."""

import numpy as np

from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_y, rotation_z, scaling, translation
from geo4d.synthetic.shapes import BOX, CONE, CYLINDER, SPHERE
from geo4d.synthetic.textures import random_colors


def clutter(builder: SceneBuilder, motion: np.ndarray, size: float) -> None:
    """A ball, crate, barrel, cone or small stack of shapes about ``size`` metres high, standing on its origin."""
    rng = builder.rng
    builder.begin_object()
    group = builder.moving(motion)
    base = 0.0
    for _ in range(1 if rng.rand() < 0.6 else rng.randint(2, 4)):
        shape = (SPHERE, BOX, BOX, CYLINDER, CYLINDER, CONE)[rng.randint(6)]
        tall = 0.5 * size * rng.uniform(0.4, 1.0)
        wide, deep = 0.5 * size * np.exp(rng.normal(-0.1, 0.35, 2))
        if shape == SPHERE and rng.rand() < 0.6:
            wide = deep = tall
        if shape in (CYLINDER, CONE):
            deep = wide
        centre = (rng.normal(0.0, 0.1 * size), base - tall, rng.normal(0.0, 0.1 * size))
        builder.add(shape, centre, (wide, tall, deep), group, rotation_y(rng.uniform(0, 6.3)), specular=None)
        base -= 1.9 * tall


def toy(builder: SceneBuilder, motion: np.ndarray, size: float) -> None:
    """A body with parts around it (machine, statue, creature) that turns, bounces and squashes; about ``size`` high."""
    rng, times = builder.rng, builder.times_s
    builder.begin_object()
    rate = 2.0 * np.pi * rng.uniform(0.2, 1.2)
    phase = rng.uniform(0.0, 6.3)
    squash = 1.0 + rng.choice([0.0, 0.08, 0.2]) * np.sin(rate * times + phase)
    stretch = scaling(np.stack([1.0 / np.sqrt(squash), squash, 1.0 / np.sqrt(squash)], -1))
    spin = rotation_y(rng.choice([0.0, rng.normal(0.0, 1.5)]) * times)
    group = builder.below(builder.moving(motion), spin @ stretch)
    main, second = builder.bank.choose(rng, "cloth"), builder.bank.choose(rng, "any")
    tall, wide = 0.3 * size, 0.3 * size * rng.uniform(0.5, 1.2)
    body_shape = (SPHERE, BOX, CYLINDER, CONE)[rng.randint(4)]
    builder.add(
        body_shape,
        (0, -0.22 * size - tall, 0),
        (wide, tall, wide * rng.uniform(0.6, 1.2)),
        group,
        texture=main,
    )
    builder.add(
        (SPHERE, BOX)[rng.randint(2)], (0, -0.85 * size, 0), np.full(3, 0.15 * size), group, texture=second
    )
    pairs = rng.randint(1, 4)
    for k in range(pairs):
        shape = (SPHERE, BOX, CYLINDER)[rng.randint(3)]
        out, level, angle = (
            wide * rng.uniform(0.6, 1.3),
            -size * rng.uniform(0.15, 0.7),
            rng.uniform(-1.0, 1.0),
        )
        half = size * np.exp(rng.normal(-2.4, 0.4, 3))
        half[1] = size * rng.uniform(0.1, 0.25)
        for side in (-1.0, 1.0):
            swing = rotation_z(side * (angle + 0.4 * np.sin(rate * times + k + (side > 0) * np.pi)))
            limb = builder.below(group, translation([side * out, level, 0.0]) @ swing)
            builder.add(shape, (0, half[1] * 0.7, 0), half, limb, texture=second)
    for side in (-1.0, 1.0):
        builder.add(
            BOX,
            (side * 0.6 * wide, -0.12 * size, 0),
            (0.08 * size, 0.12 * size, 0.1 * size),
            group,
            texture=main,
        )


def table(builder: SceneBuilder, position: np.ndarray, yaw: float, height: float) -> None:
    """Table or desk with small things on it."""
    rng = builder.rng
    builder.begin_object()
    group = builder.moving(translation(position) @ rotation_y(yaw))
    wide, deep = rng.uniform(0.3, 0.9, 2)
    wood = builder.bank.choose(rng, "plain")
    builder.add(BOX, (0, -height, 0), (wide, 0.025, deep), group, texture=wood)
    for a in (-0.9, 0.9):
        for b in (-0.9, 0.9):
            builder.add(
                BOX, (a * wide, -0.5 * height, b * deep), (0.03, 0.5 * height, 0.03), group, texture=wood
            )
    for _ in range(rng.randint(0, 5)):
        tall = rng.uniform(0.04, 0.2)
        place = (rng.uniform(-0.8, 0.8) * wide, -height - 0.02 - tall, rng.uniform(-0.8, 0.8) * deep)
        half = (tall * rng.uniform(0.4, 1.3), tall, tall * rng.uniform(0.4, 1.3))
        builder.add(
            (SPHERE, BOX, CYLINDER, CYLINDER)[rng.randint(4)],
            place,
            half,
            group,
            rotation_y(rng.uniform(0, 3)),
        )


def chair(builder: SceneBuilder, position: np.ndarray, yaw: float) -> None:
    """Chair, armchair or sofa."""
    rng = builder.rng
    builder.begin_object()
    group = builder.moving(translation(position) @ rotation_y(yaw))
    cover, color = builder.bank.choose(rng, "cloth"), np.clip(random_colors(rng, 1)[0] + 0.2, 0.0, 1.2)
    soft = rng.rand() < 0.45
    wide = rng.uniform(0.35, 1.0) if soft else rng.uniform(0.19, 0.25)
    deep, seat, back = (0.4, 0.42, 0.85) if soft else (0.21, 0.45, 0.9)
    more = {"texture": cover, "tint": color, "specular": 0.0, "texture_scale": 1.5}
    thick = 0.5 * seat - 0.03 if soft else 0.025
    builder.add(BOX, (0, -seat + thick, 0), (wide, thick, deep), group, **more)
    builder.add(
        BOX,
        (0, -0.5 * (seat + back), -deep),
        (wide, 0.5 * (back - seat) + 0.05, 0.1 if soft else 0.02),
        group,
        **more,
    )
    for side in (-1.0, 1.0):
        if soft:
            builder.add(BOX, (side * (wide + 0.08), -0.31, 0), (0.09, 0.31, deep), group, **more)
        else:
            for end in (-1.0, 1.0):
                builder.add(
                    BOX,
                    (side * wide * 0.9, -0.5 * seat, end * deep * 0.9),
                    (0.02, 0.5 * seat, 0.02),
                    group,
                    **more,
                )


def shelf(builder: SceneBuilder, position: np.ndarray, yaw: float) -> None:
    """Cupboard, or open shelf with boxes and books."""
    rng = builder.rng
    builder.begin_object()
    group = builder.moving(translation(position) @ rotation_y(yaw))
    wide, tall, deep = rng.uniform(0.4, 1.2), rng.uniform(0.6, 2.2), rng.uniform(0.15, 0.35)
    wood = builder.bank.choose(rng, "plain")
    if rng.rand() < 0.4:
        builder.add(BOX, (0, -0.5 * tall, 0), (wide, 0.5 * tall, deep), group, texture=wood)
        builder.add(BOX, (0, -0.5 * tall, deep), (0.01, 0.48 * tall, 0.01), group, tint=np.full(3, 0.2))
        return
    boards = rng.randint(3, 6)
    for k in range(boards):
        builder.add(BOX, (0, -tall * k / (boards - 1), 0), (wide, 0.02, deep), group, texture=wood)
    builder.add(BOX, (0, -0.5 * tall, -deep), (wide, 0.5 * tall, 0.015), group, texture=wood)
    for side in (-1.0, 1.0):
        builder.add(BOX, (side * wide, -0.5 * tall, 0), (0.02, 0.5 * tall, deep), group, texture=wood)
    gap = tall / (boards - 1)
    for k in range(boards - 1):
        if rng.rand() < 0.85:
            half = wide * rng.uniform(0.2, 0.7)
            high = 0.5 * gap * rng.uniform(0.4, 0.9)
            place = (rng.uniform(-1.0, 1.0) * (wide - half) * 0.9, -gap * k - 0.02 - high, 0.0)
            builder.add(BOX, place, (half, high, 0.7 * deep), group, texture_scale=2.0 ** rng.uniform(0, 2))
