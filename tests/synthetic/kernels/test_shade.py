"""Light on white unit shapes against the formulas of a diffuse surface, worked out by hand."""

import numpy as np
import pytest

from geo4d.synthetic.kernels.cast import cast_frame
from geo4d.synthetic.kernels.inputs import Environment, Primitives
from geo4d.synthetic.kernels.shade import shade_frame
from geo4d.synthetic.shapes import BOX, SPHERE
from geo4d.synthetic.textures import LEVEL_OFFSETS
from tests.support.unit_shapes import VIEW, WHITE, at, environment, primitives, rays

SIZE = (24, 32)
CENTRE = (12, 16)
WALL = (BOX, at(0, 0, 6.0, (20.0, 20.0, 1.0)))
"""A wall across the view, 5 m away, that faces the camera."""


def shade(prims: Primitives, light: Environment) -> np.ndarray:
    """[H, W, 3] linear light."""
    depth, index, color = np.zeros(SIZE), np.zeros(SIZE, np.int32), np.zeros((*SIZE, 3))
    cast_frame(prims, WHITE, LEVEL_OFFSETS, VIEW, depth, index)
    shade_frame(prims, light, WHITE, LEVEL_OFFSETS, VIEW, depth, index, color)
    return color


def test_the_sun_lights_by_the_cosine() -> None:
    """Direct light is the cosine of the angle between the sun and the normal; what is not direct stays as it is."""
    dark = shade(primitives(WALL), environment(light=np.array([0.0, 0.0, 1.0])))  # behind the wall
    for angle in (0.0, 0.5, 1.2):
        sun = environment(light=np.array([np.sin(angle), 0.0, -np.cos(angle)]))
        direct = shade(primitives(WALL), sun) - dark
        np.testing.assert_allclose(direct, 1.3 * 0.75 * np.cos(angle), rtol=1e-6)
    assert dark.min() > 0


def test_a_lamp_fades_with_the_square_of_its_distance() -> None:
    def direct(z: float) -> float:
        lamp = {"is_lamp": True, "light": np.array([0.0, 0.0, z])}
        lit = shade(primitives(WALL), environment(**lamp))[CENTRE]
        return float(
            (lit - shade(primitives(WALL), environment(ambient=0.25, light=np.array([0, 0, 1.0])))[CENTRE])[0]
        )

    ray = rays()[CENTRE] * 5.0
    for z in (-1.0, 3.0):
        away = ray - [0, 0, z]
        distance = np.linalg.norm(away)
        wanted = 0.75 * 1.3 / (1 + 0.05 * distance**2) * away[2] / distance
        assert direct(z) == pytest.approx(wanted, rel=1e-6)


def test_a_shadow_lies_where_the_way_to_the_sun_is_blocked() -> None:
    """A ball beside the view between wall and sun; its shadow is the set of points whose way passes it."""
    angle = 0.6
    sun = np.array([np.sin(angle), 0.0, -np.cos(angle)])
    ball, radius = np.array([1.2, 0.3, 3.5]), 0.5
    light = environment(light=sun)
    prims = primitives(WALL, (SPHERE, at(*ball, radius)))
    color = shade(prims, light)
    alone = shade(primitives(WALL), light)
    points = rays() * 5.0
    to_ball = ball - points
    distance = np.linalg.norm(to_ball - (to_ball @ sun)[..., None] * sun, axis=-1)
    depth, index = np.zeros(SIZE), np.zeros(SIZE, np.int32)
    cast_frame(prims, WHITE, LEVEL_OFFSETS, VIEW, depth, index)
    on_wall = index == 0
    shadow, clear = on_wall & (distance < radius - 0.02), on_wall & (distance > radius + 0.02)
    assert shadow.sum() > 5
    np.testing.assert_allclose(color[clear], alone[clear])
    np.testing.assert_allclose(color[shadow], alone[shadow] - 1.3 * 0.75 * np.cos(angle), rtol=1e-6)
    none = shade(prims._replace(shadow=np.array([True, False])), light)
    np.testing.assert_allclose(none[on_wall], alone[on_wall])


def test_fog_takes_colours_to_the_sky_with_the_depth() -> None:
    clear = shade(primitives(WALL), environment())
    foggy = shade(primitives(WALL), environment(fog=0.1))
    black = shade(primitives(WALL, tint=np.zeros((1, 3))), environment(fog=0.1))  # the veil alone
    through = np.exp(-5.0 * 0.1)
    np.testing.assert_allclose(foggy, clear * through + black, rtol=1e-9)
    sky = shade(primitives((SPHERE, at(0, 0, -9.0))), environment(fog=0.1))
    np.testing.assert_allclose(black, sky * (1 - through), rtol=1e-9)


def test_the_sky_goes_from_horizon_to_zenith() -> None:
    light = environment()
    sky = shade(primitives((SPHERE, at(0, 0, -9.0))), light)
    up = -rays()[..., 1] / np.linalg.norm(rays(), axis=-1)
    share = np.clip(1.6 * up + 0.1, 0, 1)[..., None]
    np.testing.assert_allclose(sky, light.horizon * (1 - share) + light.zenith * share, rtol=1e-9)


def test_tint_and_emission() -> None:
    plain = shade(primitives(WALL), environment())
    tinted = shade(primitives(WALL, tint=np.array([[0.5, 0.2, 1.0]])), environment())
    np.testing.assert_allclose(tinted, plain * [0.5, 0.2, 1.0], rtol=1e-9)
    glowing = shade(primitives(WALL, emission=np.array([2.0])), environment())
    np.testing.assert_allclose(glowing, plain + 2.0, rtol=1e-9)


def test_a_glossy_ball_shines_by_the_half_way_cosine() -> None:
    """The cosine between the normal and half the way from the camera to the sun, to the 32nd power."""
    centre, radius = np.array([0.0, 0.0, 5.0]), 1.5
    ball = (SPHERE, at(*centre, radius))
    sun = np.array([0.6, 0.0, -0.8])
    shine = shade(primitives(ball, specular=np.array([0.5])), environment(light=sun))
    shine -= shade(primitives(ball), environment(light=sun))
    depth, index = np.zeros(SIZE), np.zeros(SIZE, np.int32)
    cast_frame(primitives(ball), WHITE, LEVEL_OFFSETS, VIEW, depth, index)
    normal = (np.where(index[..., None] == 0, depth[..., None], 0) * rays() - centre) / radius
    half = sun - rays() / np.linalg.norm(rays(), axis=-1, keepdims=True)
    cosine = (normal * half).sum(-1) / np.linalg.norm(half, axis=-1)
    sunny = (index == 0) & (normal @ sun > 0.05)
    assert sunny.sum() > 50
    assert shine.max() > 0.3
    np.testing.assert_allclose(
        shine[sunny], (0.5 * cosine.clip(0) ** 32)[sunny][:, None].repeat(3, 1), atol=1e-9
    )
    assert not shine[index < 0].any()
