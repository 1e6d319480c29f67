"""What a scene is, as plain arrays that ``render.py`` draws, and how kinds of scenes are mixed.

A scene does not depend on the size of the picture except for its aspect ratio; lengths are metres, times seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

import numpy as np

from geo4d.synthetic.camera_paths import CAMERA_KINDS, CameraKind
from geo4d.synthetic.textures import random_stream

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
        """Number of frames."""
        return len(self.times_s)

    @property
    def num_primitives(self) -> int:
        """Number of boxes, balls, cylinders and the like."""
        return len(self.shape)


def sample_config(
    seed: int, num_frames: int, aspect: float, mix: SceneMix | None = None, bank: BankName = "train"
) -> SceneConfig:
    """Draw kind of scene, kind of camera, frame rate and zoom for ``seed`` from ``mix``.

    Args:
        num_frames, aspect, bank: of the scene, as given; ``aspect`` is height / width.
        mix: None takes ``SceneMix()``.
    Raises:
        ValueError: ``num_frames``, ``aspect`` or ``seed`` out of range.
    """
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
