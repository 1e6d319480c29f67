"""Seed -> scene: shapes, materials, motions, light and camera path, as plain arrays that ``render.py`` draws.

A scene does not depend on the size of the picture except for its aspect ratio; lengths are metres, times seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

import numpy as np

from geo4d.synthetic import objects
from geo4d.synthetic.camera_paths import (
    CAMERA_KINDS,
    CameraKind,
    PathStart,
    camera_path,
    smooth_noise,
    travel,
)
from geo4d.synthetic.objects import (
    BOX,
    CYLINDER,
    SPHERE,
    TERRAIN,
    SceneBuilder,
    rotation_x,
    rotation_y,
    rotation_z,
    translation,
    walk,
)
from geo4d.synthetic.textures import random_colors, random_stream, texture_bank

SceneKind = Literal["object_on_ground", "street", "room", "terrain", "flying"]
SCENE_KINDS: tuple[SceneKind, ...] = get_args(SceneKind)
BankName = Literal["train", "heldout"]

# Camera kinds that fit each scene, with their weights.
CAMERAS: Mapping[SceneKind, Mapping[CameraKind, float]] = {
    "object_on_ground": {
        "static": 0.20,
        "pan": 0.18,
        "handheld": 0.24,
        "dolly": 0.18,
        "orbit": 0.18,
        "driving": 0.02,
    },
    "street": {"static": 0.20, "pan": 0.18, "handheld": 0.14, "dolly": 0.13, "orbit": 0.0, "driving": 0.35},
    "room": {"static": 0.20, "pan": 0.20, "handheld": 0.25, "dolly": 0.20, "orbit": 0.15, "driving": 0.0},
    "terrain": {"static": 0.20, "pan": 0.15, "handheld": 0.15, "dolly": 0.20, "orbit": 0.10, "driving": 0.20},
    "flying": {"static": 0.20, "pan": 0.20, "handheld": 0.20, "dolly": 0.20, "orbit": 0.20, "driving": 0.0},
}


@dataclass(frozen=True)
class SceneConfig:
    """Everything a scene is a function of.

    Attributes:
        seed: any integer >= 0.
        kind: layout of the scene.
        camera: kind of camera path.
        num_frames: length of the clip.
        fps: frames per second; with ``num_frames`` it sets how far things move.
        aspect: height / width of the picture.
        zoom: the focal length changes over the clip.
        bank: texture bank.
    """

    seed: int
    kind: SceneKind = "object_on_ground"
    camera: CameraKind = "handheld"
    num_frames: int = 16
    fps: float = 12.0
    aspect: float = 0.6
    zoom: bool = False
    bank: BankName = "train"

    def __post_init__(self) -> None:
        if self.kind not in SCENE_KINDS:
            raise ValueError(f"expected a scene kind out of {SCENE_KINDS}, got {self.kind!r}")
        if self.camera not in CAMERA_KINDS:
            raise ValueError(f"expected a camera kind out of {CAMERA_KINDS}, got {self.camera!r}")
        if self.num_frames < 1 or self.fps <= 0.0 or self.aspect <= 0.0 or self.seed < 0:
            raise ValueError(f"expected num_frames >= 1, fps > 0, aspect > 0 and seed >= 0, got {self}")


@dataclass(frozen=True)
class SceneMix:
    """How often each kind of scene and camera occurs in a stream.

    Attributes:
        kinds: weights of the scene kinds.
        cameras: weights of the camera kinds within each scene kind.
        zoom: share of clips whose focal length changes.
        fps: frame rates to draw from.
    """

    kinds: Mapping[SceneKind, float] = field(
        default_factory=lambda: {
            "object_on_ground": 0.45,
            "street": 0.25,
            "room": 0.20,
            "terrain": 0.05,
            "flying": 0.05,
        }
    )
    cameras: Mapping[SceneKind, Mapping[CameraKind, float]] = field(default_factory=lambda: CAMERAS)
    zoom: float = 0.06
    fps: tuple[float, ...] = (6.0, 8.0, 10.0, 12.0, 16.0, 24.0)

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(SCENE_KINDS)
        if unknown or not self.kinds or min(self.kinds.values()) < 0.0 or sum(self.kinds.values()) <= 0.0:
            raise ValueError(
                f"expected weights >= 0 for scene kinds out of {SCENE_KINDS}, got {dict(self.kinds)}"
            )


@dataclass(frozen=True)
class Development:
    """How linear light becomes bytes.

    Attributes:
        factor: exposure.
        gains: ``[3]`` white balance.
        gamma: tone curve ``x ** (1 / gamma)``.
        contrast, pivot, saturation: 1, any, 1 leave the picture as it is.
        noise: deviation of the sensor noise, of full scale 1.
        noise_seed: of that noise.
    """

    factor: float
    gains: np.ndarray
    gamma: float
    contrast: float
    pivot: float
    saturation: float
    noise: float
    noise_seed: int


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene ready to be drawn. P primitives, O objects, T frames; world frame, metres, y down.

    Attributes:
        config: what it came from.
        attempt: how many draws were rejected before this one.
        times_s: ``[T]`` float64.
        c2w: ``[T, 4, 4]`` float64 camera to world.
        focal: ``[T]`` focal length in picture widths.
        l2w: ``[T, P, 4, 4]`` float64 unit shape -> world.
        w2l: its inverse.
        shape, size, offset, tint, texture, texture_scale, cutout, specular, emission, shadow, object_first, terrain:
            see ``kernels.Primitives``.
        object_of: ``[P]`` number of the object a primitive belongs to, from 1.
        dynamic: ``[P]`` the primitive moves or deforms.
        subjects: object numbers of the things the camera is there for.
        light, is_lamp, ambient, fog, horizon, zenith, cloud, cloud_texture, cloud_level, cloud_contrast:
            see ``kernels.Environment``.
        development: exposure and tone.
    """

    config: SceneConfig
    attempt: int
    times_s: np.ndarray
    c2w: np.ndarray
    focal: np.ndarray
    l2w: np.ndarray
    w2l: np.ndarray
    shape: np.ndarray
    size: np.ndarray
    offset: np.ndarray
    tint: np.ndarray
    texture: np.ndarray
    texture_scale: np.ndarray
    cutout: np.ndarray
    specular: np.ndarray
    emission: np.ndarray
    shadow: np.ndarray
    object_first: np.ndarray
    terrain: np.ndarray
    object_of: np.ndarray
    dynamic: np.ndarray
    subjects: tuple[int, ...]
    light: np.ndarray
    is_lamp: bool
    ambient: float
    fog: float
    horizon: np.ndarray
    zenith: np.ndarray
    cloud: np.ndarray
    cloud_texture: int
    cloud_level: float
    cloud_contrast: float
    development: Development

    @property
    def num_frames(self) -> int:
        return len(self.times_s)

    @property
    def num_primitives(self) -> int:
        return len(self.shape)


def sample_config(
    seed: int, num_frames: int, aspect: float, mix: SceneMix | None = None, bank: BankName = "train"
) -> SceneConfig:
    """Draw the kind of scene and camera for ``seed`` from ``mix``."""
    mix = SceneMix() if mix is None else mix
    rng = random_stream(seed, 77)
    kind = _weighted(rng, mix.kinds)
    camera = _weighted(rng, mix.cameras[kind])
    fps = mix.fps[rng.randint(len(mix.fps))]
    return SceneConfig(seed, kind, camera, num_frames, float(fps), aspect, bool(rng.rand() < mix.zoom), bank)


_Name = TypeVar("_Name", bound=str)


def _weighted(rng: np.random.RandomState, weights: Mapping[_Name, float]) -> _Name:
    names = sorted(weights)
    shares = np.array([weights[name] for name in names], np.float64)
    return names[rng.choice(len(names), p=shares / shares.sum())]


@dataclass
class _Plan:
    """What a layout decides beside the primitives: where the camera starts and the light."""

    position: np.ndarray
    yaw: float
    pitch: float
    speed: float
    extent: float
    target: np.ndarray
    follow: bool = False
    indoor: bool = False
    lamp: np.ndarray | None = None
    low: np.ndarray | None = None  # [3] the camera stays inside this box
    high: np.ndarray | None = None
    subjects: list[int] = field(default_factory=list)


def draw_scene(config: SceneConfig, attempt: int) -> Scene:
    """One draw of a scene, acceptable or not (``render.make_scene`` repeats until one is)."""
    rng = random_stream(config.seed, 1000 + attempt)
    bank = texture_bank(config.bank)
    times = np.arange(config.num_frames) / config.fps
    builder = SceneBuilder(rng, bank, times)
    focal = 0.5 / np.tan(0.5 * np.deg2rad(rng.uniform(35.0, 95.0)))
    layout = _LAYOUTS[config.kind]
    plan = layout(builder, config, focal)
    start = PathStart(plan.position, plan.yaw, plan.pitch, plan.speed, plan.extent, plan.target, plan.follow)
    c2w = camera_path(rng, config.camera, times, start)
    if plan.low is not None and plan.high is not None:
        c2w[:, :3, 3] = np.clip(c2w[:, :3, 3], plan.low, plan.high)
    if len(builder.terrain):
        ground = _terrain_height(builder.terrain, c2w[:, 0, 3], c2w[:, 2, 3])
        c2w[:, 1, 3] = np.minimum(c2w[:, 1, 3], -ground - 0.4)
    factor = np.ones(len(times))
    if config.zoom:
        ease = np.sin(0.5 * np.pi * times / max(times[-1], 1e-6))
        factor = rng.uniform(1.2, 2.0) ** (rng.choice([-1.0, 1.0]) * ease)
    return _freeze(builder, plan, config, attempt, c2w, np.clip(focal * factor, 0.35, 3.0))


def _freeze(
    builder: SceneBuilder, plan: _Plan, config: SceneConfig, attempt: int, c2w: np.ndarray, focal: np.ndarray
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


def without_movers(scene: Scene) -> Scene:
    """The same scene and camera with everything that moves taken out; objects are numbered anew."""
    keep = ~scene.dynamic
    owners, object_of = np.unique(scene.object_of[keep], return_inverse=True)
    object_of = object_of.reshape(-1) + 1
    numbers = {int(owner): number for number, owner in enumerate(owners, start=1)}
    rows = {
        name: getattr(scene, name)[keep]
        for name in ("shape", "size", "offset", "tint", "texture", "texture_scale", "cutout", "specular",
                     "emission", "shadow", "dynamic")
    }  # fmt: skip
    return replace(
        scene,
        **rows,
        l2w=np.ascontiguousarray(scene.l2w[:, keep]),
        w2l=np.ascontiguousarray(scene.w2l[:, keep]),
        object_of=object_of,
        object_first=np.searchsorted(object_of, np.arange(1, len(owners) + 2)),
        subjects=tuple(numbers[number] for number in scene.subjects if number in numbers),
    )


def _ground(builder: SceneBuilder, height: float = 0.0) -> None:
    builder.begin_object()
    scale = 2.0 ** builder.rng.uniform(-3.0, 0.3)
    builder.add(
        BOX,
        (0, height + 0.5, 0),
        (300, 0.5, 300),
        category="ground",
        texture_scale=scale,
        specular=0.0,
        shadow=False,
    )


def _backdrop(builder: SceneBuilder, centre: np.ndarray) -> None:
    """Far hills and woods around ``centre``."""
    rng = builder.rng
    for _ in range(rng.randint(0, 6)):
        angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(60.0, 220.0)
        builder.begin_object()
        place = centre + distance * np.array([np.sin(angle), 0.0, np.cos(angle)])
        half = (
            distance * rng.uniform(0.2, 0.6),
            distance * rng.uniform(0.03, 0.15),
            distance * rng.uniform(0.2, 0.4),
        )
        builder.add(
            SPHERE, place, half, rotation=rotation_y(angle), category="foliage",
            texture_scale=2.0 ** rng.uniform(-6, -4), specular=0.0, shadow=False,
        )  # fmt: skip


def _someone(
    builder: SceneBuilder, spot: np.ndarray, heading: float, speed: float | None = None, centred: bool = False
) -> tuple[float, np.ndarray]:
    """A person at ``spot``: walking, gesturing or standing. Returns the height and the motion."""
    rng = builder.rng
    height = rng.uniform(1.5, 1.95) if rng.rand() < 0.85 else rng.uniform(0.9, 1.4)
    if speed is None:
        speed = (
            0.0 if rng.rand() < 0.3 else rng.uniform(0.5, 2.2) if rng.rand() < 0.85 else rng.uniform(2.5, 5.0)
        )
    gesture = rng.uniform(0.15, 0.8) if rng.rand() < (0.75 if speed == 0.0 else 0.2) else 0.0
    motion = _moved_to(builder, spot, heading, speed, rng.normal(0.0, 0.4), centred)
    objects.person(builder, motion, speed, height, gesture)
    return height, motion


def _moved_to(
    builder: SceneBuilder, spot: np.ndarray, heading: float, speed: float, turn_rate: float, centred: bool
) -> np.ndarray:
    """A walk that starts at ``spot`` or, when ``centred``, is there in the middle of the clip."""
    motion, _ = walk(builder, spot, heading, speed, turn_rate)
    if centred:
        middle = motion[len(motion) // 2, :3, 3] if builder.times_s[-1] < 8.0 else motion[:, :3, 3].mean(0)
        motion = translation(spot - middle) @ motion
    return motion


def _across(rng: np.random.RandomState) -> float:
    """Heading that mostly crosses the view of a camera looking along +z."""
    return rng.choice([-0.5, 0.5]) * np.pi + rng.normal(0.0, 0.7)


def _object_on_ground(builder: SceneBuilder, config: SceneConfig, focal: float) -> _Plan:
    rng = builder.rng
    _ground(builder)
    studio = rng.rand() < 0.25
    # the subject, and the distance at which it fills the wanted share of the height
    style = rng.rand()
    share = rng.uniform(0.35, 1.15)
    side = rng.uniform(-0.25, 0.25)
    builder_first = len(builder.object_first) + 1
    speed = 0.0 if rng.rand() < 0.2 else rng.uniform(0.3, 2.0)

    def spot_for(size: float) -> np.ndarray:
        distance = float(np.clip(size * focal / (share * config.aspect), 1.1, 22.0))
        return np.array([side * distance / focal, 0.0, distance])

    if style < 0.5:
        spot = spot_for(1.7)
        size, motion = _someone(builder, spot, _across(rng), centred=True)
    elif style < 0.72:
        size = rng.uniform(0.3, 1.6)
        spot = spot_for(size * 1.3)
        motion = _moved_to(builder, spot, _across(rng), speed, rng.normal(0.0, 0.5), True)
        objects.animal(builder, motion, speed, size)
    elif style < 0.86:
        size, speed = 1.5, speed * 3.0
        spot = spot_for(2.6)
        motion = _moved_to(builder, spot, rng.uniform(0.0, 2.0 * np.pi), speed, rng.normal(0.0, 0.2), True)
        objects.car(builder, motion, speed)
    else:
        size = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
        spot = spot_for(size)
        motion = _moved_to(
            builder, spot, _across(rng), speed * rng.choice([0.0, 0.3, 1.0]), rng.normal(0.0, 0.5), True
        )
        objects.toy(builder, motion, size)
    subjects = list(range(builder_first, len(builder.object_first) + 1))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        near = spot + np.array([rng.normal(0.0, 1.2), 0.0, rng.uniform(-0.3, 3.0)]) * max(1.0, 0.25 * spot[2])
        if near[2] > 0.6 * spot[2]:
            _someone(builder, near, _across(rng))
    for _ in range(rng.randint(0, 5)):
        near = spot + rng.normal(0.0, 1.0, 3) * np.array([1.0, 0.0, 0.6]) * max(0.8, 0.35 * spot[2])
        if near[2] > 0.5 * spot[2]:
            thing = rng.uniform(0.1, 0.6)
            objects.clutter(builder, translation(near), thing)
    if studio:  # walls close behind and beside
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
    else:
        _surroundings(builder, spot)
        _backdrop(builder, spot)
    eye = float(np.clip(rng.uniform(0.25, 1.3) * size, 0.25, 2.4))
    centre = spot + np.array([0.0, -0.52 * size, 0.0])
    target = motion[:, :3, 3] + np.array([0.0, -0.52 * size, 0.0])
    position = np.array([0.0, -eye, 0.0])
    pitch = np.arctan2(eye + centre[1], spot[2]) * -1.0 + rng.normal(0.0, 0.05)
    return _Plan(
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
            _someone(builder, place, rng.uniform(0, 6.3))
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


def _street(builder: SceneBuilder, config: SceneConfig, focal: float) -> _Plan:
    rng = builder.rng
    _ground(builder)
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
                _someone(builder, place, rng.choice([0.0, np.pi]) + rng.normal(0.0, 0.3))
    middle = np.array([rng.normal(0.0, 0.2) * half, 0.0, rng.uniform(4.0, 12.0)])
    for _ in range(rng.randint(0, 5)):
        place = np.array([rng.uniform(-0.7, 0.7) * half, 0.0, rng.uniform(3.5, 28.0)])
        if rng.rand() < 0.5:
            speed = rng.uniform(1.0, 9.0)
            heading = 0.0 if place[0] > 0.0 else np.pi
            motion = _moved_to(
                builder, place, heading + rng.normal(0, 0.05), speed, rng.normal(0.0, 0.03), False
            )
            objects.car(builder, motion, speed)
        elif rng.rand() < 0.8:
            _someone(builder, place, rng.uniform(0.0, 6.3))
        else:
            speed = rng.uniform(0.3, 2.5)
            motion = _moved_to(builder, place, rng.uniform(0, 6.3), speed, rng.normal(0.0, 0.4), False)
            objects.animal(builder, motion, speed, rng.uniform(0.3, 1.2))
    if rng.rand() < 0.5:
        _backdrop(builder, middle)
    driving = config.camera == "driving"
    return _Plan(
        position=np.array([rng.uniform(-0.6, 0.6) * half, -rng.uniform(1.0, 2.2), rng.uniform(-4.0, 2.0)]),
        yaw=rng.normal(0.0, 0.08 if driving else 0.4),
        pitch=rng.normal(-0.06, 0.07),
        speed=rng.uniform(1.5, 9.0) if driving else float(np.exp(rng.normal(0.0, 0.7))),
        extent=30.0 if driving else 4.0,
        target=np.broadcast_to(middle + np.array([0.0, -1.0, 0.0]), (config.num_frames, 3)),
        low=np.array([-half, -8.0, -30.0]),
        high=np.array([half, -0.4, 80.0]),
    )


def _room(builder: SceneBuilder, config: SceneConfig, focal: float) -> _Plan:
    rng = builder.rng
    wide, deep, tall = rng.uniform(1.8, 5.0), rng.uniform(1.8, 6.0), rng.uniform(2.3, 4.0)
    lamp = None
    if rng.rand() < 0.75:
        lamp = np.array([rng.uniform(-0.7, 0.7) * wide, -tall * 0.92, rng.uniform(-0.7, 0.7) * deep])
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
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        ahead = rng.uniform(1.4, 4.0)
        bearing = yaw + rng.normal(0.0, 0.3)
        place = position + ahead * np.array([np.sin(bearing), 0.0, np.cos(bearing)])
        place = np.clip(place, -inside, inside)
        place[1] = 0.0
        kind = rng.rand()
        if kind < 0.65:
            _someone(
                builder,
                place,
                rng.uniform(0, 6.3),
                speed=rng.choice([0.0, rng.uniform(0.2, 1.2)]),
                centred=True,
            )
        elif kind < 0.85:
            speed = rng.choice([0.0, rng.uniform(0.2, 1.2)])
            motion = _moved_to(builder, place, rng.uniform(0, 6.3), speed, rng.normal(0, 0.6), True)
            objects.animal(builder, motion, speed, rng.uniform(0.25, 0.6))
        else:
            objects.toy(builder, translation(place), rng.uniform(0.2, 1.4))
    return _Plan(
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


def _terrain_height(waves: np.ndarray, x: np.ndarray | float, z: np.ndarray | float) -> np.ndarray | float:
    phase = (
        np.multiply.outer(np.asarray(x), waves[:, 0])
        + np.multiply.outer(np.asarray(z), waves[:, 1])
        + waves[:, 3]
    )
    return (waves[:, 2] * np.sin(phase)).sum(-1)


def _terrain(builder: SceneBuilder, config: SceneConfig, focal: float) -> _Plan:
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
        return np.array([x, -float(_terrain_height(waves, x, z)), z])

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
        motion = _moved_to(builder, spot, rng.uniform(0, 6.3), speed, rng.normal(0, 0.3), True)
        heights = _terrain_height(waves, motion[:, 0, 3], motion[:, 2, 3])
        motion = translation(np.stack([0 * heights, -heights - motion[:, 1, 3], 0 * heights], -1)) @ motion
        if rng.rand() < 0.55:
            objects.person(builder, motion, speed, rng.uniform(1.5, 1.9))
        else:
            objects.animal(builder, motion, speed, rng.uniform(0.4, 1.5))
    eye = rng.uniform(0.6, 4.0)
    position = on_ground(0.0, 0.0) - np.array([0.0, eye, 0.0])
    driving = config.camera == "driving"
    return _Plan(
        position=position,
        yaw=rng.normal(0.0, 0.3),
        pitch=rng.normal(-0.1, 0.08),
        speed=rng.uniform(1.5, 6.0) if driving else float(np.exp(rng.normal(0.0, 0.7))),
        extent=20.0 if driving else 5.0,
        target=np.broadcast_to(on_ground(0.0, 8.0), (config.num_frames, 3)),
    )


def _flying(builder: SceneBuilder, config: SceneConfig, focal: float) -> _Plan:
    rng, times = builder.rng, builder.times_s
    if rng.rand() < 0.6:  # inside of a huge box
        builder.begin_object()
        builder.add(
            BOX, (0, 0, 10), rng.uniform(9.0, 25.0, 3) + np.array([0, 0, 10]), texture_scale=0.2, shadow=False
        )
    if rng.rand() < 0.5:
        _ground(builder, rng.uniform(1.0, 3.0))
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
        shape = (SPHERE, BOX, CYLINDER, objects.CONE)[rng.randint(4)]
        group = builder.moving(motion)
        color = random_colors(rng, 1)[0] * 0.6 + 0.5
        builder.add(shape, (0, 0, 0), half, group, tint=color, cutout=0.45 if rng.rand() < 0.1 else -1.0)
    return _Plan(
        position=np.zeros(3),
        yaw=rng.normal(0.0, 0.15),
        pitch=rng.normal(0.0, 0.1),
        speed=float(np.exp(rng.normal(-0.5, 0.6))),
        extent=1.5,
        target=np.broadcast_to(np.array([0.0, 0.0, 6.0]), (config.num_frames, 3)),
    )


_LAYOUTS = {
    "object_on_ground": _object_on_ground,
    "street": _street,
    "room": _room,
    "terrain": _terrain,
    "flying": _flying,
}
