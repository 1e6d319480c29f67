"""People and animals that walk and gesture."""

from dataclasses import dataclass

import numpy as np

from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_x, rotation_y, rotation_z, translation
from geo4d.synthetic.shapes import BOX, CONE, CYLINDER, SPHERE
from geo4d.synthetic.textures import random_colors

SKIN = np.array(
    [[0.80, 0.58, 0.45], [0.62, 0.42, 0.30], [0.40, 0.25, 0.17], [0.25, 0.15, 0.10], [0.88, 0.68, 0.56]]
)
HAIR = np.array(
    [[0.05, 0.04, 0.03], [0.16, 0.09, 0.05], [0.45, 0.30, 0.12], [0.55, 0.53, 0.50], [0.30, 0.10, 0.05]]
)


@dataclass(frozen=True)
class _Clothes:
    """Texture, scale and tint of what covers a person, drawn once for all parts."""

    shirt: tuple[int, float, np.ndarray]
    trousers: tuple[int, float, np.ndarray]
    sleeves: tuple[int, float, np.ndarray]
    shins: tuple[int, float, np.ndarray]
    skin: np.ndarray
    hair: np.ndarray
    plain: int


@dataclass(frozen=True)
class _Walker:
    """A person while it is built.

    Attributes:
        k: height over 1.75 m: what all lengths are multiplied with.
        broad: width over the usual one.
        stride: amplitude of the legs, radians.
        swing: ``[T]`` phase of the legs, radians.
        wave: pace of gestures, rad/s.
        phase: of gestures, radians.
        gesture: amplitude of gestures, radians.
        hips, trunk: groups.
    """

    builder: SceneBuilder
    k: float
    broad: float
    stride: float
    swing: np.ndarray
    wave: float
    phase: float
    gesture: float
    hips: int
    trunk: int

    def add(
        self,
        shape: int,
        centre: list[float],
        half: list[float],
        group: int,
        tint: np.ndarray,
        texture: int,
        scale: float,
    ) -> None:
        """Add a dull part; ``centre`` and ``half`` as of a person of 1.75 m."""
        self.builder.add(
            shape,
            np.array(centre) * self.k,
            np.array(half) * self.k,
            group,
            texture=texture,
            texture_scale=scale,
            tint=tint,
            specular=0.0,
        )


def person(
    builder: SceneBuilder, motion: np.ndarray, speed: float, height: float, gesture: float = 0.0
) -> None:
    """Walking or gesturing person.

    Args:
        motion: where the feet are.
        speed: m/s; sets stride length and pace. 0 stands.
        gesture: how much the arms and the trunk move beside the walking, radians.
    """
    rng, times = builder.rng, builder.times_s
    k = height / 1.75
    broad = rng.uniform(0.82, 1.4)
    pace = 2.0 * np.pi * (0.55 + 0.42 * speed) / np.sqrt(k) * rng.uniform(0.9, 1.15)
    stride = min(0.75, 0.22 + 0.3 * speed) if speed > 0.05 else 0.0
    phase = rng.uniform(0.0, 2.0 * np.pi)
    swing = pace * times + phase
    wave = 2.0 * np.pi * rng.uniform(0.3, 1.4)
    clothes = _draw_clothes(builder)
    builder.begin_object()
    bob = 0.025 * k * np.abs(np.sin(swing)) * (stride > 0.0)
    lean = 0.04 * speed + 0.3 * gesture * np.sin(0.7 * wave * times + phase)
    hips_offset = np.stack([0.0 * bob, -0.92 * k - bob, 0.0 * bob], -1)
    hips = builder.below(builder.moving(motion), translation(hips_offset))
    trunk_turn = 0.15 * stride * np.sin(swing) + 0.5 * gesture * np.sin(wave * times)
    trunk = builder.below(hips, rotation_y(trunk_turn) @ rotation_x(-lean))
    walker = _Walker(builder, k, broad, stride, swing, wave, phase, gesture, hips, trunk)
    _add_trunk_and_head(walker, clothes)
    for side in (-1.0, 1.0):
        leg = swing if side < 0 else swing + np.pi
        _add_leg(walker, clothes, side, leg)
        _add_arm(walker, clothes, side, leg)


def _draw_clothes(builder: SceneBuilder) -> _Clothes:
    rng = builder.rng
    shirt, trousers, plain = (builder.bank.choose(rng, name) for name in ("cloth", "cloth", "plain"))
    shirt_scale, trouser_scale = 2.0 ** rng.uniform(-0.5, 2.0, 2)
    shirt_tint, trouser_tint = np.clip(random_colors(rng, 2) * 0.6 + 0.5, 0.0, 1.2)
    skin = SKIN[rng.randint(len(SKIN))] * rng.uniform(0.85, 1.1)
    hair = HAIR[rng.randint(len(HAIR))]
    sleeves = shirt_tint if rng.rand() < 0.6 else skin
    shins = skin if rng.rand() < 0.25 else trouser_tint
    return _Clothes(
        (shirt, shirt_scale, shirt_tint),
        (trousers, trouser_scale, trouser_tint),
        (shirt, shirt_scale, sleeves),
        (trousers, trouser_scale, shins),
        skin,
        hair,
        plain,
    )


def _add_trunk_and_head(walker: _Walker, clothes: _Clothes) -> None:
    rng, times = walker.builder.rng, walker.builder.times_s
    broad, hips, trunk = walker.broad, walker.hips, walker.trunk
    shirt, shirt_scale, shirt_tint = clothes.shirt
    trousers, trouser_scale, trouser_tint = clothes.trousers
    add, skin, hair, plain = walker.add, clothes.skin, clothes.hair, clothes.plain
    torso_shape = (SPHERE, CYLINDER, CYLINDER, BOX)[rng.randint(4)]
    add(SPHERE, [0, 0.0, 0], [0.17 * broad, 0.15, 0.13 * broad], hips, trouser_tint, trousers, trouser_scale)
    add(
        torso_shape,
        [0, -0.28, 0],
        [0.185 * broad, 0.30, 0.115 * broad],
        trunk,
        shirt_tint,
        shirt,
        shirt_scale,
    )
    add(SPHERE, [0, -0.50, 0], [0.21 * broad, 0.10, 0.11 * broad], trunk, shirt_tint, shirt, shirt_scale)
    nod = 0.5 * walker.gesture * np.sin(0.5 * walker.wave * times + 1.0) + rng.normal(0, 0.2)
    head = walker.builder.below(trunk, rotation_y(nod))
    add(CYLINDER, [0, -0.60, 0], [0.05, 0.06, 0.05], head, skin, plain, 1.0)
    add(SPHERE, [0, -0.74, 0.01], [0.085, 0.12, 0.10], head, skin, plain, 1.0)
    add(SPHERE, [0, -0.775, -0.025], [0.093, 0.105, 0.095], head, hair, plain, 3.0)
    if rng.rand() < 0.15:  # hat
        add(CYLINDER, [0, -0.84, 0], [0.15, 0.012, 0.15], head, shirt_tint * 0.7, trousers, 2.0)
        add(CYLINDER, [0, -0.89, 0], [0.09, 0.05, 0.09], head, shirt_tint * 0.7, trousers, 2.0)
    if rng.rand() < 0.2:  # backpack
        add(BOX, [0, -0.33, -0.19], [0.14, 0.2, 0.09], trunk, random_colors(rng, 1)[0], shirt, 2.0)
    if rng.rand() < 0.15:  # skirt
        add(
            CONE, [0, 0.15, 0], [0.3 * broad, 0.38, 0.26 * broad], hips, trouser_tint, trousers, trouser_scale
        )


def _add_leg(walker: _Walker, clothes: _Clothes, side: float, leg: np.ndarray) -> None:
    """``leg``: ``[T]`` phase of this leg, radians."""
    rng, times, k, broad = walker.builder.rng, walker.builder.times_s, walker.k, walker.broad
    trousers, scale, tint = clothes.trousers
    spread = side * rng.uniform(0.0, 0.1)
    thigh = walker.builder.below(
        walker.hips,
        translation([side * 0.095 * k, 0.05 * k, 0.0])
        @ rotation_x(walker.stride * np.sin(leg) + 0.3 * walker.gesture * np.sin(walker.wave * times + side))
        @ rotation_z(-spread),
    )
    walker.add(CYLINDER, [0, 0.2, 0], [0.08 * broad, 0.22, 0.08 * broad], thigh, tint, trousers, scale)
    bend = -1.3 * walker.stride * (0.5 + 0.5 * np.cos(leg - 0.4)) - 0.03
    shin = walker.builder.below(thigh, translation([0.0, 0.42 * k, 0.0]) @ rotation_x(bend))
    trousers, scale, tint = clothes.shins
    walker.add(CYLINDER, [0, 0.2, 0], [0.058 * broad, 0.22, 0.058 * broad], shin, tint, trousers, scale)
    walker.add(
        SPHERE, [0, 0.42, 0.06], [0.05, 0.045, 0.13], shin, clothes.hair * 0.8 + 0.05, clothes.plain, 2.0
    )


def _add_arm(walker: _Walker, clothes: _Clothes, side: float, leg: np.ndarray) -> None:
    """``leg``: ``[T]`` phase of the leg on this side, against which the arm swings."""
    rng, times, k, broad = walker.builder.rng, walker.builder.times_s, walker.k, walker.broad
    gesture, wave, phase, stride = walker.gesture, walker.wave, walker.phase, walker.stride
    shirt, scale, tint = clothes.sleeves
    raised = rng.uniform(0.0, 1.6) if rng.rand() < (0.5 if gesture > 0.0 else 0.1) else 0.0
    upper = walker.builder.below(
        walker.trunk,
        translation([side * 0.23 * k * broad, -0.52 * k, 0.0])
        @ rotation_x(
            -0.8 * stride * np.sin(leg) + raised + gesture * np.sin(wave * times + side * 1.3 + phase)
        )
        @ rotation_z(-side * (0.08 + 0.5 * gesture * (1.0 + np.sin(wave * times + phase)))),
    )
    walker.add(CYLINDER, [0, 0.14, 0], [0.05 * broad, 0.16, 0.05 * broad], upper, tint, shirt, scale)
    bend = 0.15 + 0.5 * stride + gesture * (0.6 + 0.6 * np.sin(1.3 * wave * times + side))
    fore = walker.builder.below(upper, translation([0.0, 0.29 * k, 0.0]) @ rotation_x(bend))
    walker.add(CYLINDER, [0, 0.12, 0], [0.037 * broad, 0.14, 0.037 * broad], fore, tint, shirt, scale)
    walker.add(SPHERE, [0, 0.29, 0], [0.035, 0.055, 0.045], fore, clothes.skin, clothes.plain, 1.0)


def animal(builder: SceneBuilder, motion: np.ndarray, speed: float, height: float) -> None:
    """Four-legged animal of shoulder height ``height``."""
    rng, times = builder.rng, builder.times_s
    k = height
    long, thick, neck_length = rng.uniform(0.45, 0.85), rng.uniform(0.7, 1.5), rng.uniform(0.1, 0.7)
    pace = 2.0 * np.pi * (0.8 + 0.5 * speed / np.sqrt(k))
    stride = min(0.7, 0.25 + 0.3 * speed / np.sqrt(k)) if speed > 0.05 else 0.0
    phase = rng.uniform(0.0, 2.0 * np.pi)
    fur = builder.bank.choose(rng, "foliage" if rng.rand() < 0.3 else "plain")
    scale = 2.0 ** rng.uniform(0.0, 2.0)
    tint = np.clip(HAIR[rng.randint(len(HAIR))] * rng.uniform(0.8, 3.0) + rng.uniform(0.0, 0.3), 0.03, 1.1)
    builder.begin_object()
    bob = np.stack([0.0 * times, -0.03 * k * np.sin(2.0 * pace * times) * (stride > 0), 0.0 * times], -1)
    body = builder.below(builder.moving(motion), translation(bob))

    def part(shape: int, centre: list[float], half: list[float], group: int) -> None:
        builder.add(
            shape,
            np.array(centre) * k,
            np.array(half) * k,
            group,
            texture=fur,
            texture_scale=scale,
            tint=tint * rng.uniform(0.9, 1.1),
            specular=0.0,
        )

    trunk = 0.2 * thick
    part(SPHERE, [0, -0.78, 0], [0.85 * trunk, trunk, long * 0.75], body)
    part(SPHERE, [0, -0.80, 0.4 * long], [0.8 * trunk, trunk * 1.1, 0.3 * long], body)
    nod = builder.below(
        body,
        translation(np.array([0, -0.88, 0.58 * long]) * k)
        @ rotation_x(rng.uniform(0.2, 1.0) + 0.15 * np.sin(pace * times + phase))
        @ rotation_y(0.3 * np.sin(1.5 * times + phase)),
    )
    part(CYLINDER, [0, 0, 0.5 * neck_length], [0.09, 0.09, 0.6 * neck_length], nod)
    head = builder.below(
        nod, translation(np.array([0, 0, neck_length]) * k) @ rotation_x(-rng.uniform(0.3, 1.0))
    )
    part(SPHERE, [0, 0, 0.05], [0.10, 0.11, 0.14], head)
    part(SPHERE, [0, 0.04, 0.2], [0.055, 0.055, 0.12], head)
    for side in (-1.0, 1.0):
        part(CONE, [side * 0.07, -0.13, -0.02], [0.04, 0.08, 0.025], head)
    wag = rotation_y(0.5 * np.sin(2.0 * pace * times)) @ rotation_x(rng.uniform(-0.9, 0.8))
    tail = builder.below(body, translation(np.array([0, -0.85, -0.7 * long]) * k) @ wag)
    part(SPHERE, [0, 0, -0.2], [0.035, 0.035, 0.25], tail)
    for side in (-1.0, 1.0):
        for end in (-1.0, 1.0):
            leg = pace * times + phase + (0.0 if side * end > 0 else np.pi)
            upper = builder.below(
                body,
                translation(np.array([side * 0.6 * trunk, -0.66, end * 0.5 * long]) * k)
                @ rotation_x(stride * np.sin(leg)),
            )
            part(CYLINDER, [0, 0.16, 0], [0.07 * thick, 0.2, 0.08 * thick], upper)
            bend = rotation_x(-end * 0.2 - stride * (0.5 + 0.5 * np.cos(leg)))
            lower = builder.below(upper, translation(np.array([0, 0.34, 0]) * k) @ bend)
            part(CYLINDER, [0, 0.15, 0], [0.045, 0.18, 0.045], lower)
            part(SPHERE, [0, 0.31, 0.03], [0.05, 0.03, 0.07], lower)
