"""Scenes with less texture: walls, ceilings and houses in one colour, as most real rooms have them.

A network that has only seen textured walls takes a bright, even surface for the sky, or for something far away. This
changes a finished scene, for training only; the frozen held-out set is drawn without it.
"""

from dataclasses import replace

import numpy as np

from geo4d.synthetic.scene import Scene
from geo4d.synthetic.shapes import BOX
from geo4d.synthetic.textures import random_stream

LARGE = 0.4
"""Second half extent, metres, from which a box counts as a wall, a ceiling, a floor or a house."""


def blank_surfaces(scene: Scene) -> Scene:
    """The same scene with some of its large boxes in one even colour, lit as before.

    Which ones, and how, is a function of the scene's seed. Rooms are blanked most, and half of them are also seen with
    the camera tilted, so that ceilings and bare corners fill the picture more often; a tenth is over-exposed.
    """
    rng = random_stream(scene.config.seed, 31)
    indoor = scene.config.kind == "room"
    extents = np.sort(scene.size, axis=1)
    large = (scene.shape == BOX) & (extents[:, 1] > LARGE) & (scene.cutout < 0.0)
    if not indoor:
        large &= scene.size[:, 0] < 250.0  # the ground of open scenes keeps its texture
    chosen = large & (rng.rand(len(large)) < rng.uniform(0.4, 1.0))
    texture_scale, tint, specular = scene.texture_scale.copy(), scene.tint.copy(), scene.specular.copy()
    # A texture drawn out over tens of metres is an even colour with a slight change across the surface.
    texture_scale[chosen] = 2.0 ** rng.uniform(-9.0, -5.5, int(chosen.sum()))
    shared = _paint(rng)
    for index in np.flatnonzero(chosen):
        tint[index] = shared if rng.rand() < 0.6 else _paint(rng)
        specular[index] = 0.0
    texture = scene.texture.copy()
    if rng.rand() < 0.7:  # one pale texture for all: the tint decides
        texture[chosen] = _PALE[rng.randint(len(_PALE))]
    development = scene.development
    if rng.rand() < 0.1:
        development = replace(development, factor=development.factor * rng.uniform(1.2, 1.8))
    c2w = scene.c2w
    if indoor and rng.rand() < 0.5:
        angle = rng.uniform(-0.3, 0.35)
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        c2w = scene.c2w @ turn
    return replace(
        scene,
        texture=texture,
        texture_scale=texture_scale,
        tint=tint,
        specular=specular,
        development=development,
        c2w=c2w,
    )


_PALE = tuple(4 + 6 * k for k in range(64))
"""Textures of the category "plain" in the training bank."""


def _paint(rng: np.random.RandomState) -> np.ndarray:
    """White, grey, pastel, or bluish as a sky."""
    kind = rng.rand()
    if kind < 0.5:
        return np.clip(rng.uniform(0.7, 1.5) + rng.normal(0.0, 0.04, 3), 0.3, 1.8)
    if kind < 0.75:
        return np.clip(rng.uniform(0.4, 1.3) + rng.normal(0.0, 0.2, 3), 0.1, 1.8)
    return np.array([0.75, 0.95, 1.2]) * rng.uniform(0.5, 1.4)
