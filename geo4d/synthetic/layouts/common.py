"""Ground, far hills and people, for every layout."""

import numpy as np

from geo4d.synthetic import objects
from geo4d.synthetic.objects.builder import SceneBuilder, walk
from geo4d.synthetic.objects.motions import rotation_y, translation
from geo4d.synthetic.shapes import BOX, SPHERE


def ground(builder: SceneBuilder, height: float = 0.0) -> None:
    """A floor without end in the plane y = ``height`` (metres, y down), as one object."""
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


def backdrop(builder: SceneBuilder, centre: np.ndarray) -> None:
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


def someone(
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
    motion = moved_to(builder, spot, heading, speed, rng.normal(0.0, 0.4), centred)
    objects.person(builder, motion, speed, height, gesture)
    return height, motion


def moved_to(
    builder: SceneBuilder, spot: np.ndarray, heading: float, speed: float, turn_rate: float, centred: bool
) -> np.ndarray:
    """A walk that starts at ``spot`` or, when ``centred``, is there in the middle of the clip."""
    motion, _ = walk(builder, spot, heading, speed, turn_rate)
    if centred:
        middle = motion[len(motion) // 2, :3, 3] if builder.times_s[-1] < 8.0 else motion[:, :3, 3].mean(0)
        motion = translation(spot - middle) @ motion
    return motion


def across(rng: np.random.RandomState) -> float:
    """Heading that mostly crosses the view of a camera looking along +z."""
    return rng.choice([-0.5, 0.5]) * np.pi + rng.normal(0.0, 0.7)
