"""A scene while it grows: primitives in groups that move together."""

from dataclasses import dataclass, field

import numpy as np

from geo4d.synthetic.objects.motions import rotation_y, translation
from geo4d.synthetic.textures import TextureBank


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
