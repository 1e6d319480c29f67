"""Things made of primitives: people, animals, vehicles, trees, furniture. All in metres, y down, feet at the origin.

A ``SceneBuilder`` collects primitives that hang on *groups*; a group is one rigid or affine motion ``[T, 4, 4]``
(local -> world), so an arm is a group below the group of its person. Things that face somewhere face +z.
"""

from dataclasses import dataclass, field

import numpy as np

from geo4d.synthetic.textures import TextureBank, random_colors

# the same numbers as in kernels.py, which cannot be imported without numba
SPHERE, BOX, CYLINDER, CONE, TERRAIN = 0, 1, 2, 3, 4

SKIN = np.array(
    [[0.80, 0.58, 0.45], [0.62, 0.42, 0.30], [0.40, 0.25, 0.17], [0.25, 0.15, 0.10], [0.88, 0.68, 0.56]]
)
HAIR = np.array(
    [[0.05, 0.04, 0.03], [0.16, 0.09, 0.05], [0.45, 0.30, 0.12], [0.55, 0.53, 0.50], [0.30, 0.10, 0.05]]
)


def rotation_x(angle: np.ndarray | float) -> np.ndarray:
    """``[..., 4, 4]`` turn about x; positive lifts +z up (towards -y)."""
    return _rotation(angle, 1, 2)


def rotation_y(angle: np.ndarray | float) -> np.ndarray:
    """``[..., 4, 4]`` turn about y; positive takes +z to +x."""
    return _rotation(angle, 2, 0)


def rotation_z(angle: np.ndarray | float) -> np.ndarray:
    """``[..., 4, 4]`` turn about z; positive takes +x to +y."""
    return _rotation(angle, 0, 1)


def _rotation(angle: np.ndarray | float, first: int, second: int) -> np.ndarray:
    angle = np.asarray(angle, np.float64)
    matrix = np.zeros((*angle.shape, 4, 4))
    matrix[...] = np.eye(4)
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., second, first] = np.sin(angle)
    matrix[..., first, second] = -np.sin(angle)
    return matrix


def translation(offset: np.ndarray | list[float] | tuple[float, ...]) -> np.ndarray:
    """``[..., 4, 4]`` shift by ``offset [..., 3]``."""
    offset = np.asarray(offset, np.float64)
    matrix = np.zeros((*offset.shape[:-1], 4, 4))
    matrix[...] = np.eye(4)
    matrix[..., :3, 3] = offset
    return matrix


def scaling(factors: np.ndarray) -> np.ndarray:
    """``[..., 4, 4]`` stretch along the axes by ``factors [..., 3]``."""
    factors = np.asarray(factors, np.float64)
    matrix = np.zeros((*factors.shape[:-1], 4, 4))
    matrix[...] = np.eye(4)
    for axis in range(3):
        matrix[..., axis, axis] = factors[..., axis]
    return matrix


@dataclass
class SceneBuilder:
    """Growing lists of a scene; ``scene.py`` freezes them into arrays.

    Attributes:
        rng: the stream every thing draws from.
        bank: where textures are chosen.
        times_s: ``[T]`` seconds of the frames.
        groups: motions ``[T, 4, 4]``; group 0 stands still.
    """

    rng: np.random.RandomState
    bank: TextureBank
    times_s: np.ndarray
    groups: list[np.ndarray] = field(default_factory=list)
    local: list[np.ndarray] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    size: list[np.ndarray] = field(default_factory=list)
    offset: list[np.ndarray] = field(default_factory=list)
    tint: list[np.ndarray] = field(default_factory=list)
    texture: list[int] = field(default_factory=list)
    texture_scale: list[float] = field(default_factory=list)
    cutout: list[float] = field(default_factory=list)
    specular: list[float] = field(default_factory=list)
    emission: list[float] = field(default_factory=list)
    shadow: list[bool] = field(default_factory=list)
    object_first: list[int] = field(default_factory=list)
    terrain: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))

    def __post_init__(self) -> None:
        self.groups.append(np.broadcast_to(np.eye(4), (len(self.times_s), 4, 4)))

    def moving(self, motion: np.ndarray) -> int:
        """New group with the motion ``[T, 4, 4]`` or ``[4, 4]`` (local -> world)."""
        self.groups.append(np.broadcast_to(motion, (len(self.times_s), 4, 4)))
        return len(self.groups) - 1

    def below(self, group: int, motion: np.ndarray) -> int:
        """New group that moves by ``motion`` inside the frame of ``group``."""
        return self.moving(self.groups[group] @ motion)

    def begin_object(self) -> None:
        """Primitives from here on belong to the next object."""
        self.object_first.append(len(self.shape))

    def add(
        self,
        shape: int,
        centre: tuple[float, float, float] | list[float] | np.ndarray,
        half: tuple[float, float, float] | list[float] | np.ndarray,
        group: int = 0,
        rotation: np.ndarray | None = None,
        texture: int | None = None,
        category: str = "any",
        texture_scale: float | None = None,
        tint: np.ndarray | None = None,
        cutout: float = -1.0,
        specular: float | None = None,
        emission: float = 0.0,
        shadow: bool = True,
    ) -> None:
        """Add one unit shape, stretched to ``half`` extents, turned, and moved to ``centre`` of ``group``."""
        rng = self.rng
        local = np.eye(4) if rotation is None else rotation.copy()
        local[:3, :3] = local[:3, :3] * np.asarray(half, np.float64)
        local[:3, 3] = centre
        self.local.append(local)
        self.group.append(group)
        self.shape.append(shape)
        self.size.append(np.asarray(half, np.float64))
        self.offset.append(rng.rand(2) * 8.0)
        self.texture.append(self.bank.choose(rng, category) if texture is None else texture)
        self.texture_scale.append(2.0 ** rng.uniform(-2.5, 1.0) if texture_scale is None else texture_scale)
        self.tint.append(
            np.clip(1.0 + rng.normal(0.0, 0.1, 3), 0.5, 1.4) if tint is None else np.asarray(tint)
        )
        self.cutout.append(cutout)
        if specular is None:
            specular = rng.uniform(0.0, 0.4) if rng.rand() < 0.2 else 0.0
        self.specular.append(specular)
        self.emission.append(emission)
        self.shadow.append(shadow)


def walk(
    builder: SceneBuilder, start: np.ndarray, heading: float, speed: float, turn_rate: float
) -> tuple[np.ndarray, float]:
    """Motion ``[T, 4, 4]`` along a smooth curve from ``start``, facing forward, and the speed in m/s.

    Args:
        start: ``[3]`` metres.
        heading: radians about y; 0 walks towards +z.
        speed: m/s.
        turn_rate: rad/s. Long clips turn at least once every 12 m so that nobody leaves the scene.
    """
    times = builder.times_s
    if times[-1] > 8.0 and abs(turn_rate) < speed / 2.0:
        turn_rate = (speed / 2.0) * (1.0 if turn_rate >= 0.0 else -1.0)
    angle = heading + turn_rate * times
    if abs(turn_rate) > 1e-4:
        x = (np.cos(heading) - np.cos(angle)) * (speed / turn_rate)
        z = (np.sin(angle) - np.sin(heading)) * (speed / turn_rate)
    else:
        x, z = np.sin(heading) * speed * times, np.cos(heading) * speed * times
    offset = np.stack([x, np.zeros_like(x), z], -1)
    return translation(offset + start) @ rotation_y(angle), speed


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
    shirt, trousers, skin_texture = (builder.bank.choose(rng, name) for name in ("cloth", "cloth", "plain"))
    shirt_scale, trouser_scale = 2.0 ** rng.uniform(-0.5, 2.0, 2)
    shirt_tint, trouser_tint = np.clip(random_colors(rng, 2) * 0.6 + 0.5, 0.0, 1.2)
    skin = SKIN[rng.randint(len(SKIN))] * rng.uniform(0.85, 1.1)
    hair = HAIR[rng.randint(len(HAIR))]
    sleeves = shirt_tint if rng.rand() < 0.6 else skin
    bare_legs = rng.rand() < 0.25
    builder.begin_object()
    bob = 0.025 * k * np.abs(np.sin(swing)) * (stride > 0.0)
    lean = 0.04 * speed + 0.3 * gesture * np.sin(0.7 * wave * times + phase)
    hips_offset = np.stack([0.0 * bob, -0.92 * k - bob, 0.0 * bob], -1)
    hips = builder.below(builder.moving(motion), translation(hips_offset))
    trunk_turn = 0.15 * stride * np.sin(swing) + 0.5 * gesture * np.sin(wave * times)
    trunk = builder.below(hips, rotation_y(trunk_turn) @ rotation_x(-lean))

    def part(
        shape: int,
        centre: list[float],
        half: list[float],
        group: int,
        tint: np.ndarray,
        texture: int,
        scale: float,
    ) -> None:
        builder.add(
            shape,
            np.array(centre) * k,
            np.array(half) * k,
            group,
            texture=texture,
            texture_scale=scale,
            tint=tint,
            specular=0.0,
        )

    torso_shape = (SPHERE, CYLINDER, CYLINDER, BOX)[rng.randint(4)]
    part(SPHERE, [0, 0.0, 0], [0.17 * broad, 0.15, 0.13 * broad], hips, trouser_tint, trousers, trouser_scale)
    part(
        torso_shape,
        [0, -0.28, 0],
        [0.185 * broad, 0.30, 0.115 * broad],
        trunk,
        shirt_tint,
        shirt,
        shirt_scale,
    )
    part(SPHERE, [0, -0.50, 0], [0.21 * broad, 0.10, 0.11 * broad], trunk, shirt_tint, shirt, shirt_scale)
    head = builder.below(
        trunk, rotation_y(0.5 * gesture * np.sin(0.5 * wave * times + 1.0) + rng.normal(0, 0.2))
    )
    part(CYLINDER, [0, -0.60, 0], [0.05, 0.06, 0.05], head, skin, skin_texture, 1.0)
    part(SPHERE, [0, -0.74, 0.01], [0.085, 0.12, 0.10], head, skin, skin_texture, 1.0)
    part(SPHERE, [0, -0.775, -0.025], [0.093, 0.105, 0.095], head, hair, skin_texture, 3.0)
    if rng.rand() < 0.15:  # hat
        part(CYLINDER, [0, -0.84, 0], [0.15, 0.012, 0.15], head, shirt_tint * 0.7, trousers, 2.0)
        part(CYLINDER, [0, -0.89, 0], [0.09, 0.05, 0.09], head, shirt_tint * 0.7, trousers, 2.0)
    if rng.rand() < 0.2:  # backpack
        part(BOX, [0, -0.33, -0.19], [0.14, 0.2, 0.09], trunk, random_colors(rng, 1)[0], shirt, 2.0)
    skirt = rng.rand() < 0.15
    if skirt:
        part(
            CONE, [0, 0.15, 0], [0.3 * broad, 0.38, 0.26 * broad], hips, trouser_tint, trousers, trouser_scale
        )
    for side in (-1.0, 1.0):
        leg = swing if side < 0 else swing + np.pi
        spread = side * rng.uniform(0.0, 0.1)
        thigh = builder.below(
            hips,
            translation([side * 0.095 * k, 0.05 * k, 0.0])
            @ rotation_x(stride * np.sin(leg) + 0.3 * gesture * np.sin(wave * times + side))
            @ rotation_z(-spread),
        )
        part(
            CYLINDER,
            [0, 0.2, 0],
            [0.08 * broad, 0.22, 0.08 * broad],
            thigh,
            trouser_tint,
            trousers,
            trouser_scale,
        )
        bend = -1.3 * stride * (0.5 + 0.5 * np.cos(leg - 0.4)) - 0.03
        shin = builder.below(thigh, translation([0.0, 0.42 * k, 0.0]) @ rotation_x(bend))
        tint = skin if bare_legs else trouser_tint
        part(CYLINDER, [0, 0.2, 0], [0.058 * broad, 0.22, 0.058 * broad], shin, tint, trousers, trouser_scale)
        part(SPHERE, [0, 0.42, 0.06], [0.05, 0.045, 0.13], shin, hair * 0.8 + 0.05, skin_texture, 2.0)
        raised = rng.uniform(0.0, 1.6) if rng.rand() < (0.5 if gesture > 0.0 else 0.1) else 0.0
        upper = builder.below(
            trunk,
            translation([side * 0.23 * k * broad, -0.52 * k, 0.0])
            @ rotation_x(
                -0.8 * stride * np.sin(leg) + raised + gesture * np.sin(wave * times + side * 1.3 + phase)
            )
            @ rotation_z(-side * (0.08 + 0.5 * gesture * (1.0 + np.sin(wave * times + phase)))),
        )
        part(CYLINDER, [0, 0.14, 0], [0.05 * broad, 0.16, 0.05 * broad], upper, sleeves, shirt, shirt_scale)
        bend = 0.15 + 0.5 * stride + gesture * (0.6 + 0.6 * np.sin(1.3 * wave * times + side))
        fore = builder.below(upper, translation([0.0, 0.29 * k, 0.0]) @ rotation_x(bend))
        part(CYLINDER, [0, 0.12, 0], [0.037 * broad, 0.14, 0.037 * broad], fore, sleeves, shirt, shirt_scale)
        part(SPHERE, [0, 0.29, 0], [0.035, 0.055, 0.045], fore, skin, skin_texture, 1.0)


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
