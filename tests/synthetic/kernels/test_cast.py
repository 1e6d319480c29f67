"""Depth and numbers of unit shapes against closed forms."""

import numpy as np

from geo4d.synthetic.kernels.cast import cast_frame, cast_pixel, screen_boxes
from geo4d.synthetic.kernels.inputs import FAR, Primitives, View
from geo4d.synthetic.shapes import BOX, SPHERE, TERRAIN
from geo4d.synthetic.textures import LEVEL_OFFSETS
from tests.support.unit_shapes import VIEW, WHITE, at, primitives, rays

SIZE = (24, 32)


def cast(prims: Primitives, view: View = VIEW) -> tuple[np.ndarray, np.ndarray]:
    depth, index = np.zeros(SIZE), np.zeros(SIZE, np.int32)
    cast_frame(prims, WHITE, LEVEL_OFFSETS, view, depth, index)
    return depth, index


def sphere_depth(centre: np.ndarray, radius: float) -> np.ndarray:
    """z where the rays of VIEW first meet a sphere, FAR where they miss: the smaller root of the quadratic."""
    d = rays()
    a, b, c = (d**2).sum(-1), d @ centre, centre @ centre - radius**2
    root = b**2 - a * c
    return np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, FAR)


def test_a_sphere_has_the_depth_of_the_quadratic() -> None:
    depth, index = cast(primitives((SPHERE, at(0.3, -0.2, 5.0, 1.5))))
    wanted = sphere_depth(np.array([0.3, -0.2, 5.0]), 1.5)
    np.testing.assert_allclose(depth, wanted, rtol=1e-9)
    np.testing.assert_array_equal(index, np.where(wanted < FAR, 0, -1))
    assert 50 < (index == 0).sum() < 400


def test_the_nearer_one_wins_whatever_the_order() -> None:
    wall, ball = (BOX, at(0, 0, 8.0, (9.0, 9.0, 0.5))), (SPHERE, at(0.3, -0.2, 5.0, 1.5))
    wanted = np.minimum(sphere_depth(np.array([0.3, -0.2, 5.0]), 1.5), 7.5)
    for parts, number in (((wall, ball), 1), ((ball, wall), 0)):
        depth, index = cast(primitives(*parts))
        np.testing.assert_allclose(depth, wanted, rtol=1e-9)
        np.testing.assert_array_equal(index, np.where(wanted < 7.5, number, 1 - number))


def test_depth_is_z_of_the_camera_and_not_of_the_world() -> None:
    turn = np.eye(4)
    angle = 0.4
    turn[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    turn[:3, 3] = 0.5, -0.3, 1.0
    depth, _ = cast(primitives((BOX, at(0, 0, 8.0, (40.0, 40.0, 1.0)))), VIEW._replace(c2w=turn))
    world_z = 1.0 + depth * (rays() @ turn[:3, :3].T)[..., 2]
    np.testing.assert_allclose(world_z, 7.0, rtol=1e-9)


def test_flat_terrain_is_a_plane_below_the_horizon() -> None:
    lower = np.eye(4)
    lower[1, 3] = -1.6  # 1.6 m above the ground; y points down
    depth, index = cast(primitives((TERRAIN, np.eye(4))), VIEW._replace(c2w=lower))
    down = rays()[..., 1]
    seen = down > 0.05
    np.testing.assert_allclose(depth[seen], 1.6 / down[seen], rtol=1e-3)
    assert (index[down < 0] == -1).all()


def test_a_box_on_the_screen_holds_every_pixel_of_its_shape_and_little_more() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        place = rng.uniform([-3, -2, 2], [3, 2, 9])
        prims = primitives((SPHERE, at(*place, rng.uniform(0.2, 1.5))))
        row0, row1, column0, column1 = screen_boxes(prims, VIEW, *SIZE)[0]
        rows, columns = np.nonzero(sphere_depth(place, prims.l2w[0, 0, 0]) < FAR)
        if len(rows):
            assert row0 <= rows.min()
            assert rows.max() < row1
            assert column0 <= columns.min()
            assert columns.max() < column1
    behind = primitives((SPHERE, at(0, 0, -5.0)))
    assert not screen_boxes(behind, VIEW, *SIZE).any()
    assert (cast(behind)[1] == -1).all()
    small = screen_boxes(primitives((BOX, at(0, 0, 10.0, 0.5))), VIEW, *SIZE)[0]
    assert (small[1] - small[0]) * (small[3] - small[2]) <= 6 * 6  # 2.1 pixels wide, and two around them


def test_one_pixel_answers_as_the_frame_does_and_keeps_its_limit() -> None:
    prims = primitives((BOX, at(0, 0, 8.0, (2.0, 9.0, 0.5))), (SPHERE, at(0.3, -0.2, 5.0, 1.5)))
    depth, index = cast(prims)
    boxes = screen_boxes(prims, VIEW, *SIZE)
    for row in range(0, 24, 3):
        for column in range(0, 32, 3):
            found = cast_pixel(prims, WHITE, LEVEL_OFFSETS, VIEW, boxes, column + 0.5, row + 0.5, FAR)
            assert found == (depth[row, column], index[row, column])
    nearer = cast_pixel(prims, WHITE, LEVEL_OFFSETS, VIEW, boxes, 16.5, 12.5, 2.0)
    assert nearer == (2.0, -1)
