"""The nearest primitive behind each pixel and its z-depth.

Rays are ``origin + t * direction`` with ``direction = c2w_rotation @ (x, y, 1)``; the ray parameter ``t`` therefore IS
the z-depth.
"""

from typing import no_type_check

import numpy as np

from geo4d.synthetic.kernels.compiled import kernel
from geo4d.synthetic.kernels.hit import hit, hit_primitive, hit_terrain
from geo4d.synthetic.kernels.inputs import FAR, NEAR, TERRAIN_FAR
from geo4d.synthetic.shapes import TERRAIN


@kernel
@no_type_check
def screen_boxes(prims, view, height, width):
    """[P, 4] pixel ranges (row0, row1, column0, column1) that may show each primitive."""
    count = prims.shape.shape[0]
    boxes = np.zeros((count, 4), np.int64)
    corners = np.zeros((8, 3))
    r = view.c2w
    for p in range(count):
        if prims.shape[p] == TERRAIN:
            boxes[p, 1] = height
            boxes[p, 3] = width
            continue
        m = prims.l2w[p]
        for k in range(8):
            a = 1.0 if k & 1 else -1.0
            b = 1.0 if k & 2 else -1.0
            c = 1.0 if k & 4 else -1.0
            wx = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + m[0, 3] - r[0, 3]
            wy = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + m[1, 3] - r[1, 3]
            wz = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + m[2, 3] - r[2, 3]
            for axis in range(3):
                corners[k, axis] = r[0, axis] * wx + r[1, axis] * wy + r[2, axis] * wz
        left, right, top, bottom = 1e9, -1e9, 1e9, -1e9
        for k in range(8):
            z = corners[k, 2]
            if z >= NEAR:
                x = corners[k, 0] / z
                y = corners[k, 1] / z
                left = min(left, x)
                right = max(right, x)
                top = min(top, y)
                bottom = max(bottom, y)
            for bit in (1, 2, 4):  # where the edge to a neighbour crosses the near plane
                other = k ^ bit
                if other > k and (corners[other, 2] < NEAR) != (z < NEAR):
                    share = (NEAR - z) / (corners[other, 2] - z)
                    x = (corners[k, 0] + share * (corners[other, 0] - corners[k, 0])) / NEAR
                    y = (corners[k, 1] + share * (corners[other, 1] - corners[k, 1])) / NEAR
                    left = min(left, x)
                    right = max(right, x)
                    top = min(top, y)
                    bottom = max(bottom, y)
        left = max(-1.0, min(width + 1.0, left * view.focal + view.cx))
        right = max(-1.0, min(width + 1.0, right * view.focal + view.cx))
        top = max(-1.0, min(height + 1.0, top * view.focal + view.cy))
        bottom = max(-1.0, min(height + 1.0, bottom * view.focal + view.cy))
        if right > 0.0 and bottom > 0.0 and left < width and top < height:
            boxes[p, 0] = max(0, int(top - 1.0))
            boxes[p, 1] = min(height, int(bottom + 2.0))
            boxes[p, 2] = max(0, int(left - 1.0))
            boxes[p, 3] = min(width, int(right + 2.0))
    return boxes


@kernel
@no_type_check
def cast_frame(prims, texels, offsets, view, depth, index):
    """Fill depth [H, W] (z, FAR where nothing) and index [H, W] (primitive, -1 where nothing)."""
    height, width = depth.shape
    depth[:] = FAR
    index[:] = -1
    boxes = screen_boxes(prims, view, height, width)
    r = view.c2w
    ox, oy, oz = r[0, 3], r[1, 3], r[2, 3]
    for p in range(prims.shape.shape[0]):
        row0, row1, column0, column1 = boxes[p, 0], boxes[p, 1], boxes[p, 2], boxes[p, 3]
        if row1 <= row0 or column1 <= column0:
            continue
        m = prims.w2l[p]
        shape = prims.shape[p]
        terrain = shape == TERRAIN
        holes = prims.cutout[p] >= 0.0
        lox = m[0, 0] * ox + m[0, 1] * oy + m[0, 2] * oz + m[0, 3]
        loy = m[1, 0] * ox + m[1, 1] * oy + m[1, 2] * oz + m[1, 3]
        loz = m[2, 0] * ox + m[2, 1] * oy + m[2, 2] * oz + m[2, 3]
        # camera direction (x, y, 1) -> local direction
        a00 = m[0, 0] * r[0, 0] + m[0, 1] * r[1, 0] + m[0, 2] * r[2, 0]
        a01 = m[0, 0] * r[0, 1] + m[0, 1] * r[1, 1] + m[0, 2] * r[2, 1]
        a02 = m[0, 0] * r[0, 2] + m[0, 1] * r[1, 2] + m[0, 2] * r[2, 2]
        a10 = m[1, 0] * r[0, 0] + m[1, 1] * r[1, 0] + m[1, 2] * r[2, 0]
        a11 = m[1, 0] * r[0, 1] + m[1, 1] * r[1, 1] + m[1, 2] * r[2, 1]
        a12 = m[1, 0] * r[0, 2] + m[1, 1] * r[1, 2] + m[1, 2] * r[2, 2]
        a20 = m[2, 0] * r[0, 0] + m[2, 1] * r[1, 0] + m[2, 2] * r[2, 0]
        a21 = m[2, 0] * r[0, 1] + m[2, 1] * r[1, 1] + m[2, 2] * r[2, 1]
        a22 = m[2, 0] * r[0, 2] + m[2, 1] * r[1, 2] + m[2, 2] * r[2, 2]
        for i in range(row0, row1):
            y = (i + 0.5 - view.cy) / view.focal
            for j in range(column0, column1):
                x = (j + 0.5 - view.cx) / view.focal
                ldx = a00 * x + a01 * y + a02
                ldy = a10 * x + a11 * y + a12
                ldz = a20 * x + a21 * y + a22
                if terrain:
                    limit = min(depth[i, j], TERRAIN_FAR)
                    t = hit_terrain(prims.terrain, lox, loy, loz, ldx, ldy, ldz, limit)
                else:
                    t = hit(shape, lox, loy, loz, ldx, ldy, ldz, NEAR, False)
                    if holes and 0.0 < t < depth[i, j]:
                        t = hit_primitive(
                            prims, texels, offsets, p, lox, loy, loz, ldx, ldy, ldz, depth[i, j]
                        )
                if t > 0.0 and t < depth[i, j]:
                    depth[i, j] = t
                    index[i, j] = p


@kernel
@no_type_check
def cast_pixel(prims, texels, offsets, view, boxes, u, v, limit):
    """Depth and primitive seen at the image point (u, v) nearer than limit; (limit, -1) where nothing."""
    r = view.c2w
    x = (u - view.cx) / view.focal
    y = (v - view.cy) / view.focal
    dx = r[0, 0] * x + r[0, 1] * y + r[0, 2]
    dy = r[1, 0] * x + r[1, 1] * y + r[1, 2]
    dz = r[2, 0] * x + r[2, 1] * y + r[2, 2]
    ox, oy, oz = r[0, 3], r[1, 3], r[2, 3]
    best = limit
    found = -1
    for p in range(prims.shape.shape[0]):
        if v < boxes[p, 0] or v > boxes[p, 1] or u < boxes[p, 2] or u > boxes[p, 3]:
            continue
        m = prims.w2l[p]
        lox = m[0, 0] * ox + m[0, 1] * oy + m[0, 2] * oz + m[0, 3]
        loy = m[1, 0] * ox + m[1, 1] * oy + m[1, 2] * oz + m[1, 3]
        loz = m[2, 0] * ox + m[2, 1] * oy + m[2, 2] * oz + m[2, 3]
        ldx = m[0, 0] * dx + m[0, 1] * dy + m[0, 2] * dz
        ldy = m[1, 0] * dx + m[1, 1] * dy + m[1, 2] * dz
        ldz = m[2, 0] * dx + m[2, 1] * dy + m[2, 2] * dz
        if prims.shape[p] == TERRAIN:
            t = hit_terrain(prims.terrain, lox, loy, loz, ldx, ldy, ldz, min(best, TERRAIN_FAR))
        else:
            t = hit_primitive(prims, texels, offsets, p, lox, loy, loz, ldx, ldy, ldz, best)
        if t > 0.0 and t < best:
            best = t
            found = p
    return best, found
