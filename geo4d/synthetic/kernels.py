"""Ray casting of affine unit shapes, compiled by numba and cached on disk. Frames in, pixels out; no randomness.

Every primitive is a unit shape (see ``SPHERE`` ... ``TERRAIN``) under one affine map per frame, so that movement and
deformation are exact. Rays are ``origin + t * direction`` with ``direction = c2w_rotation @ (x, y, 1)``; the ray
parameter ``t`` therefore IS the z-depth. Strict IEEE arithmetic (no fast-math): the same scene gives the same bits.

Importing this module needs numba (extra ``synthetic``); ``render.py`` turns its absence into a clear error.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

# Unit shapes. y points down, so the tip of the cone is at y = -1.
SPHERE, BOX, CYLINDER, CONE, TERRAIN = 0, 1, 2, 3, 4

NEAR = 0.03  # metres in front of the camera where surfaces start
FAR = 1e8
TERRAIN_FAR = 400.0

kernel = njit(cache=True, nogil=True, error_model="numpy")


class Primitives(NamedTuple):
    """P primitives of one frame; rows are ordered by object."""

    shape: np.ndarray  # [P] int64
    l2w: np.ndarray  # [P, 4, 4] unit shape -> world
    w2l: np.ndarray  # [P, 4, 4] its inverse
    size: np.ndarray  # [P, 3] half extents in metres, for texture coordinates
    offset: np.ndarray  # [P, 2] texture offset
    tint: np.ndarray  # [P, 3]
    texture: np.ndarray  # [P] int64
    texture_scale: np.ndarray  # [P] texture repeats per metre
    cutout: np.ndarray  # [P] noise level below which the surface is a hole; negative: solid
    specular: np.ndarray  # [P]
    emission: np.ndarray  # [P]
    shadow: np.ndarray  # [P] bool: casts a shadow
    object_first: np.ndarray  # [O + 1] int64: first primitive of every object
    terrain: np.ndarray  # [N, 4] waves of the terrain: frequency x, frequency z, height, phase


class Environment(NamedTuple):
    """Light and sky of one scene."""

    light: np.ndarray  # [3] position of a lamp or direction towards the sun (unit)
    is_lamp: bool
    ambient: float
    fog: float  # 1/m
    horizon: np.ndarray  # [3]
    zenith: np.ndarray  # [3]
    cloud: np.ndarray  # [3]
    cloud_texture: int
    cloud_level: float
    cloud_contrast: float


class View(NamedTuple):
    """One pinhole camera; pixel centres at +0.5."""

    c2w: np.ndarray  # [4, 4]
    focal: float
    cx: float
    cy: float


@kernel
@no_type_check
def _texel(texels, offsets, texture, u, v, level, channel):
    size = 256 >> level
    x = (u - math.floor(u)) * size - 0.5
    y = (v - math.floor(v)) * size - 0.5
    x0 = math.floor(x)
    y0 = math.floor(y)
    fx = x - x0
    fy = y - y0
    mask = size - 1
    x1 = (x0 + 1) & mask
    y1 = (y0 + 1) & mask
    x0 = x0 & mask
    y0 = y0 & mask
    base = offsets[level]
    row0 = base + y0 * size
    row1 = base + y1 * size
    top = texels[texture, row0 + x0, channel] * (1.0 - fx) + texels[texture, row0 + x1, channel] * fx
    bottom = texels[texture, row1 + x0, channel] * (1.0 - fx) + texels[texture, row1 + x1, channel] * fx
    return (top * (1.0 - fy) + bottom * fy) * (1.0 / 255.0)


@kernel
@no_type_check
def _texel_color(texels, offsets, texture, u, v, level):
    size = 256 >> level
    x = (u - math.floor(u)) * size - 0.5
    y = (v - math.floor(v)) * size - 0.5
    x0 = math.floor(x)
    y0 = math.floor(y)
    fx = x - x0
    fy = y - y0
    mask = size - 1
    x1 = (x0 + 1) & mask
    y1 = (y0 + 1) & mask
    x0 = x0 & mask
    y0 = y0 & mask
    base = offsets[level]
    a = texels[texture, base + y0 * size + x0]
    b = texels[texture, base + y0 * size + x1]
    c = texels[texture, base + y1 * size + x0]
    d = texels[texture, base + y1 * size + x1]
    wa = (1.0 - fx) * (1.0 - fy) / 255.0
    wb = fx * (1.0 - fy) / 255.0
    wc = (1.0 - fx) * fy / 255.0
    wd = fx * fy / 255.0
    return (
        a[0] * wa + b[0] * wb + c[0] * wc + d[0] * wd,
        a[1] * wa + b[1] * wb + c[1] * wc + d[1] * wd,
        a[2] * wa + b[2] * wb + c[2] * wc + d[2] * wd,
    )


@kernel
@no_type_check
def terrain_height(waves, x, z):
    """Height above y = 0 of the terrain at (x, z), metres upwards."""
    height = 0.0
    for k in range(waves.shape[0]):
        height += waves[k, 2] * math.sin(waves[k, 0] * x + waves[k, 1] * z + waves[k, 3])
    return height


@kernel
@no_type_check
def _hit_terrain(waves, ox, oy, oz, dx, dy, dz, limit):
    highest = 0.0
    steepest = 0.0
    for k in range(waves.shape[0]):
        highest += abs(waves[k, 2])
        steepest += abs(waves[k, 2]) * math.sqrt(waves[k, 0] ** 2 + waves[k, 1] ** 2)
    flat = math.sqrt(dx * dx + dz * dz)
    closing = max(0.3 * abs(dy), dy) + 0.6 * steepest * flat + 1e-3  # how fast the gap may shrink, nearly
    t = 0.1
    if -oy > highest:  # start where the ray enters the slab of the terrain
        if dy <= 1e-9:
            return -1.0
        t = max(t, (-oy - highest) / dy)
    before, gap_before = t, 1.0
    for _ in range(150):
        if t > limit:
            return -1.0
        y = oy + t * dy
        if dy < 0.0 and -y > highest:
            return -1.0
        gap = -y - terrain_height(waves, ox + t * dx, oz + t * dz)
        if gap < 0.0:
            low, high, gap_low, gap_high = before, t, gap_before, gap
            for _b in range(40):  # Illinois: regula falsi that halves the weight of a side that stays
                middle = (low * gap_high - high * gap_low) / (gap_high - gap_low)
                gap = -(oy + middle * dy) - terrain_height(waves, ox + middle * dx, oz + middle * dz)
                if abs(gap) < 1e-7 * (1.0 + middle):
                    return middle
                if gap < 0.0:
                    high, gap_high = middle, gap
                    gap_low *= 0.5
                else:
                    low, gap_low = middle, gap
                    gap_high *= 0.5
            return 0.5 * (low + high)
        before, gap_before = t, gap
        t += max(0.04 * t + 0.02, gap / closing)
    return -1.0


@kernel
@no_type_check
def _hit(shape, ox, oy, oz, dx, dy, dz, start, far_side):
    """Ray parameter of the first (or, with far_side, the last) hit of a unit shape beyond start, else -1."""
    if shape == SPHERE:
        a = dx * dx + dy * dy + dz * dz
        b = ox * dx + oy * dy + oz * dz
        c = ox * ox + oy * oy + oz * oz - 1.0
        root = b * b - a * c
        if root <= 0.0:
            return -1.0
        root = math.sqrt(root)
        t = (-b - root) / a
        if t > start and not far_side:
            return t
        t = (-b + root) / a
        return t if t > start else -1.0
    if shape == BOX:
        ix = 1.0 / (dx if abs(dx) > 1e-12 else 1e-12)
        iy = 1.0 / (dy if abs(dy) > 1e-12 else 1e-12)
        iz = 1.0 / (dz if abs(dz) > 1e-12 else 1e-12)
        x0 = (-1.0 - ox) * ix
        x1 = (1.0 - ox) * ix
        y0 = (-1.0 - oy) * iy
        y1 = (1.0 - oy) * iy
        z0 = (-1.0 - oz) * iz
        z1 = (1.0 - oz) * iz
        first = max(max(min(x0, x1), min(y0, y1)), min(z0, z1))
        last = min(min(max(x0, x1), max(y0, y1)), max(z0, z1))
        if first > last:
            return -1.0
        if first > start and not far_side:
            return first
        return last if last > start else -1.0
    if shape == CYLINDER:
        a = dx * dx + dz * dz + 1e-18
        b = ox * dx + oz * dz
        root = b * b - a * (ox * ox + oz * oz - 1.0)
        if root <= 0.0:
            return -1.0
        root = math.sqrt(root)
        side0 = (-b - root) / a
        side1 = (-b + root) / a
        iy = 1.0 / (dy if abs(dy) > 1e-12 else 1e-12)
        cap0 = (-1.0 - oy) * iy
        cap1 = (1.0 - oy) * iy
        first = max(side0, min(cap0, cap1))
        last = min(side1, max(cap0, cap1))
        if first > last:
            return -1.0
        if first > start and not far_side:
            return first
        return last if last > start else -1.0
    # CONE: radius (y + 1) / 2 for y in [-1, 1]
    h = oy + 1.0
    a = dx * dx + dz * dz - 0.25 * dy * dy
    b = ox * dx + oz * dz - 0.25 * h * dy
    c = ox * ox + oz * oz - 0.25 * h * h
    best = -1.0
    if abs(a) < 1e-12:
        a = 1e-12
    root = b * b - a * c
    if root > 0.0:
        root = math.sqrt(root)
        for k in range(2):
            t = (-b - root) / a if k == 0 else (-b + root) / a
            y = oy + t * dy
            if t > start and -1.0 <= y <= 1.0 and (best < 0.0 or (t < best) != far_side):
                best = t
    if abs(dy) > 1e-12:
        t = (1.0 - oy) / dy
        x = ox + t * dx
        z = oz + t * dz
        if t > start and x * x + z * z <= 1.0 and (best < 0.0 or (t < best) != far_side):
            best = t
    return best


@kernel
@no_type_check
def _solid_at(prims, texels, offsets, p, x, y, z):
    """Whether the cut-out primitive p is solid at the local point (x, y, z)."""
    u = x * prims.size[p, 0] + 0.7 * z * prims.size[p, 2] + prims.offset[p, 0]
    v = y * prims.size[p, 1] + 0.5 * z * prims.size[p, 2] + prims.offset[p, 1]
    scale = prims.texture_scale[p]
    return _texel(texels, offsets, prims.texture[p], u * scale, v * scale, 1, 3) > prims.cutout[p]


@kernel
@no_type_check
def _hit_primitive(prims, texels, offsets, p, lox, loy, loz, ldx, ldy, ldz, limit):
    """First hit nearer than limit of primitive p by a ray in its local frame, holes respected, else -1."""
    t = _hit(prims.shape[p], lox, loy, loz, ldx, ldy, ldz, NEAR, False)
    if t <= 0.0 or t >= limit or prims.cutout[p] < 0.0:
        return t if t < limit else -1.0
    if _solid_at(prims, texels, offsets, p, lox + t * ldx, loy + t * ldy, loz + t * ldz):
        return t
    t = _hit(prims.shape[p], lox, loy, loz, ldx, ldy, ldz, NEAR, True)
    if t <= 0.0 or t >= limit:
        return -1.0
    if _solid_at(prims, texels, offsets, p, lox + t * ldx, loy + t * ldy, loz + t * ldz):
        return t
    return -1.0


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
                    t = _hit_terrain(prims.terrain, lox, loy, loz, ldx, ldy, ldz, limit)
                else:
                    t = _hit(shape, lox, loy, loz, ldx, ldy, ldz, NEAR, False)
                    if holes and 0.0 < t < depth[i, j]:
                        t = _hit_primitive(
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
            t = _hit_terrain(prims.terrain, lox, loy, loz, ldx, ldy, ldz, min(best, TERRAIN_FAR))
        else:
            t = _hit_primitive(prims, texels, offsets, p, lox, loy, loz, ldx, ldy, ldz, best)
        if t > 0.0 and t < best:
            best = t
            found = p
    return best, found


@kernel
@no_type_check
def _object_spheres(prims):
    """[O, 4] bounding spheres of the shadow casters of every object: centre, radius (negative: casts nothing)."""
    count = prims.object_first.shape[0] - 1
    spheres = np.zeros((count, 4))
    radii = np.zeros(prims.shape.shape[0])
    for o in range(count):
        first, last = prims.object_first[o], prims.object_first[o + 1]
        number = 0
        for p in range(first, last):
            if not prims.shadow[p]:
                continue
            m = prims.l2w[p]
            columns = 0.0
            for k in range(3):
                for c in range(3):
                    columns += m[c, k] * m[c, k]
            largest = 0.0
            for k in range(3):
                largest = max(largest, m[0, k] ** 2 + m[1, k] ** 2 + m[2, k] ** 2)
            radii[p] = math.sqrt(largest if prims.shape[p] == SPHERE else columns)
            for c in range(3):
                spheres[o, c] += m[c, 3]
            number += 1
        if number == 0:
            spheres[o, 3] = -1.0
            continue
        for c in range(3):
            spheres[o, c] /= number
        for p in range(first, last):
            if prims.shadow[p]:
                m = prims.l2w[p]
                away = math.sqrt(
                    (m[0, 3] - spheres[o, 0]) ** 2
                    + (m[1, 3] - spheres[o, 1]) ** 2
                    + (m[2, 3] - spheres[o, 2]) ** 2
                )
                spheres[o, 3] = max(spheres[o, 3], away + radii[p])
    return spheres, radii


@kernel
@no_type_check
def _light_reaches(prims, spheres, radii, sx, sy, sz, lx, ly, lz, limit):
    """1 in the light, 0 in shadow, in between behind foliage."""
    light = 1.0
    for o in range(spheres.shape[0]):
        reach = spheres[o, 3]
        if reach < 0.0:
            continue
        qx = spheres[o, 0] - sx
        qy = spheres[o, 1] - sy
        qz = spheres[o, 2] - sz
        along = qx * lx + qy * ly + qz * lz
        distance = qx * qx + qy * qy + qz * qz
        if distance - along * along > reach * reach or (along < 0.0 and distance > reach * reach):
            continue
        for p in range(prims.object_first[o], prims.object_first[o + 1]):
            if not prims.shadow[p]:
                continue
            m = prims.l2w[p]
            qx = m[0, 3] - sx
            qy = m[1, 3] - sy
            qz = m[2, 3] - sz
            along = qx * lx + qy * ly + qz * lz
            distance = qx * qx + qy * qy + qz * qz
            reach = radii[p]
            if distance - along * along > reach * reach or (along < 0.0 and distance > reach * reach):
                continue
            b = prims.w2l[p]
            t = _hit(
                prims.shape[p],
                b[0, 0] * sx + b[0, 1] * sy + b[0, 2] * sz + b[0, 3],
                b[1, 0] * sx + b[1, 1] * sy + b[1, 2] * sz + b[1, 3],
                b[2, 0] * sx + b[2, 1] * sy + b[2, 2] * sz + b[2, 3],
                b[0, 0] * lx + b[0, 1] * ly + b[0, 2] * lz,
                b[1, 0] * lx + b[1, 1] * ly + b[1, 2] * lz,
                b[2, 0] * lx + b[2, 1] * ly + b[2, 2] * lz,
                1e-3,
                False,
            )
            if t > 0.0 and t < limit:
                if prims.cutout[p] < 0.0:
                    return 0.0
                light *= 0.55
                if light < 0.2:
                    return light
    return light


@kernel
@no_type_check
def shade_frame(prims, environment, texels, offsets, view, depth, index, color):
    """Fill color [H, W, 3] (linear light, unbounded) of what cast_frame found."""
    height, width = depth.shape
    spheres, radii = _object_spheres(prims)
    r = view.c2w
    ox, oy, oz = r[0, 3], r[1, 3], r[2, 3]
    normal = np.zeros(3)
    for i in range(height):
        y = (i + 0.5 - view.cy) / view.focal
        for j in range(width):
            x = (j + 0.5 - view.cx) / view.focal
            dx = r[0, 0] * x + r[0, 1] * y + r[0, 2]
            dy = r[1, 0] * x + r[1, 1] * y + r[1, 2]
            dz = r[2, 0] * x + r[2, 1] * y + r[2, 2]
            length = math.sqrt(dx * dx + dy * dy + dz * dz)
            p = index[i, j]
            d = depth[i, j]
            veil = 1.0 if p < 0 else 1.0 - math.exp(-d * environment.fog)
            s0, s1, s2 = 0.0, 0.0, 0.0
            if veil > 0.0:
                up = -dy / length
                g = max(0.0, min(1.0, up * 1.6 + 0.1))
                cover = 0.0
                if p < 0 and up > 0.0:
                    # a plane of clouds above, seen in perspective
                    cu = 0.12 * dx / length / (up + 0.12)
                    cv = 0.12 * dz / length / (up + 0.12)
                    noise = _texel(texels, offsets, environment.cloud_texture, cu, cv, 0, 3)
                    cover = (noise - environment.cloud_level) * environment.cloud_contrast
                    cover = max(0.0, min(1.0, cover)) * min(1.0, up * 5.0)
                s0 = environment.horizon[0] * (1.0 - g) + environment.zenith[0] * g
                s1 = environment.horizon[1] * (1.0 - g) + environment.zenith[1] * g
                s2 = environment.horizon[2] * (1.0 - g) + environment.zenith[2] * g
                s0 += (environment.cloud[0] - s0) * cover
                s1 += (environment.cloud[1] - s1) * cover
                s2 += (environment.cloud[2] - s2) * cover
            if p < 0:
                color[i, j, 0] = s0
                color[i, j, 1] = s1
                color[i, j, 2] = s2
                continue
            wx = ox + d * dx
            wy = oy + d * dy
            wz = oz + d * dz
            m = prims.w2l[p]
            lx = m[0, 0] * wx + m[0, 1] * wy + m[0, 2] * wz + m[0, 3]
            ly = m[1, 0] * wx + m[1, 1] * wy + m[1, 2] * wz + m[1, 3]
            lz = m[2, 0] * wx + m[2, 1] * wy + m[2, 2] * wz + m[2, 3]
            shape = prims.shape[p]
            gx, gy, gz = 0.0, 0.0, 0.0  # gradient in the local frame
            wrapped = False  # texture runs around the axis
            if shape == SPHERE:
                gx, gy, gz = lx, ly, lz
            elif shape == CYLINDER:
                if abs(ly) > 0.9999:
                    gy = ly
                else:
                    gx, gz = lx, lz
                    wrapped = True
            elif shape == CONE:
                if ly > 0.9999:
                    gy = 1.0
                else:
                    gx, gy, gz = lx, -0.25 * (ly + 1.0), lz
                    wrapped = True
            elif shape == TERRAIN:
                gy = -1.0
                for k in range(prims.terrain.shape[0]):
                    w = prims.terrain[k]
                    slope = w[2] * math.cos(w[0] * wx + w[1] * wz + w[3])
                    gx -= slope * w[0]
                    gz -= slope * w[1]
            elif abs(lx) > abs(ly) and abs(lx) > abs(lz):
                gx = 1.0 if lx > 0.0 else -1.0
            elif abs(ly) > abs(lz):
                gy = 1.0 if ly > 0.0 else -1.0
            else:
                gz = 1.0 if lz > 0.0 else -1.0
            for c in range(3):
                normal[c] = m[0, c] * gx + m[1, c] * gy + m[2, c] * gz
            norm = math.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2) + 1e-12
            facing = (normal[0] * dx + normal[1] * dy + normal[2] * dz) / norm / length
            flip = -1.0 / norm if facing > 0.0 else 1.0 / norm
            nx = normal[0] * flip
            ny = normal[1] * flip
            nz = normal[2] * flip
            facing = abs(facing)
            # texture coordinates in metres, by the dominant side
            ax = lx * prims.size[p, 0]
            ay = ly * prims.size[p, 1]
            az = lz * prims.size[p, 2]
            if shape == TERRAIN:
                u, v = wx, wz
            elif wrapped:
                u = math.atan2(lx, lz) * prims.size[p, 0]
                v = ay
            elif abs(gx) >= abs(gy) and abs(gx) >= abs(gz):
                u, v = az, ay
            elif abs(gy) >= abs(gz):
                u, v = ax, az
            else:
                u, v = ax, ay
            scale = prims.texture_scale[p]
            u = (u + prims.offset[p, 0]) * scale
            v = (v + prims.offset[p, 1]) * scale
            footprint = d * length / view.focal * scale * 256.0 / max(0.3, facing)
            level = 0
            while footprint > 1.3 and level < 8:
                footprint *= 0.5
                level += 1
            t0, t1, t2 = _texel_color(texels, offsets, prims.texture[p], u, v, level)
            if scale < 2.0 and shape != SPHERE:
                # a coarse copy of the noise channel hides the repetition on large surfaces
                patch = 0.7 + 0.6 * _texel(
                    texels, offsets, prims.texture[p], u * 0.137, v * 0.137, min(8, max(0, level - 3)), 3
                )
                t0 *= patch
                t1 *= patch
                t2 *= patch
            # light
            if environment.is_lamp:
                vx = environment.light[0] - wx
                vy = environment.light[1] - wy
                vz = environment.light[2] - wz
                reach = math.sqrt(vx * vx + vy * vy + vz * vz) + 1e-9
                vx /= reach
                vy /= reach
                vz /= reach
                strength = 1.3 / (1.0 + 0.05 * reach * reach)
            else:
                vx, vy, vz = environment.light[0], environment.light[1], environment.light[2]
                reach = 80.0
                strength = 1.3
            towards = nx * vx + ny * vy + nz * vz
            lit = 0.0
            if towards > 0.0:
                away = 1e-3 * d + 4e-3
                lit = _light_reaches(
                    prims, spheres, radii, wx + nx * away, wy + ny * away, wz + nz * away, vx, vy, vz, reach
                )
            direct = max(0.0, towards) * lit * strength * (1.0 - environment.ambient)
            diffuse = environment.ambient * (0.72 - 0.28 * ny) * (0.6 + 0.4 * facing)
            amount = direct + diffuse + prims.emission[p]
            shine = 0.0
            if prims.specular[p] > 0.0 and towards > 0.0:
                hx = vx - dx / length
                hy = vy - dy / length
                hz = vz - dz / length
                half = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
                cosine = max(0.0, (nx * hx + ny * hy + nz * hz) / half)
                cosine *= cosine  # power 32
                cosine *= cosine
                cosine *= cosine
                cosine *= cosine
                cosine *= cosine
                shine = prims.specular[p] * lit * cosine
            clear = 1.0 - veil
            color[i, j, 0] = (t0 * prims.tint[p, 0] * amount + shine) * clear + s0 * veil
            color[i, j, 1] = (t1 * prims.tint[p, 1] * amount + shine) * clear + s1 * veil
            color[i, j, 2] = (t2 * prims.tint[p, 2] * amount + shine) * clear + s2 * veil


@kernel
@no_type_check
def develop_frame(color, factor, block, gains, contrast, pivot, saturation, curve, noise, seed, rgb):
    """Linear colour [H * block, W * block, 3] to bytes [H, W, 3]: box filter, exposure, tone curve, noise.

    curve is a table over [0, 1]; noise is the deviation of a near-Gaussian that depends on seed and position.
    """
    height, width = rgb.shape[0], rgb.shape[1]
    last = curve.shape[0] - 1
    values = np.zeros(3)
    for i in range(height):
        for j in range(width):
            for c in range(3):
                total = 0.0
                for a in range(block):
                    for b in range(block):
                        total += color[i * block + a, j * block + b, c]
                x = max(0.0, min(1.0, total * factor * gains[c] / (block * block))) * last
                k = min(int(x), last - 1)
                values[c] = curve[k] + (curve[k + 1] - curve[k]) * (x - k)
            grey = (values[0] + values[1] + values[2]) / 3.0
            state = np.uint64(seed) + np.uint64(i * width + j) * np.uint64(0x9E3779B97F4A7C15)
            for c in range(3):
                value = grey + (values[c] - grey) * saturation
                value = (value - pivot) * contrast + pivot
                if noise > 0.0:
                    state += np.uint64(0x9E3779B97F4A7C15)
                    z = state
                    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                    z = z ^ (z >> np.uint64(31))
                    # sum of four 16-bit uniforms: deviation sqrt(4 / 12)
                    total = 0.0
                    for _ in range(4):
                        total += float(z & np.uint64(0xFFFF)) / 65535.0
                        z = z >> np.uint64(16)
                    value += (total - 2.0) * 1.7320508 * noise
                rgb[i, j, c] = np.uint8(max(0.0, min(1.0, value)) * 255.0 + 0.5)


@kernel
@no_type_check
def _project(view, wx, wy, wz):
    r = view.c2w
    qx = wx - r[0, 3]
    qy = wy - r[1, 3]
    qz = wz - r[2, 3]
    z = r[0, 2] * qx + r[1, 2] * qy + r[2, 2] * qz
    x = r[0, 0] * qx + r[1, 0] * qy + r[2, 0] * qz
    y = r[0, 1] * qx + r[1, 1] * qy + r[2, 1] * qz
    return x / z * view.focal + view.cx, y / z * view.focal + view.cy, z


@kernel
@no_type_check
def flow_frame(source, target, texels, offsets, source_view, target_view, depth, index, flow, visible):
    """Exact flow [H, W, 2] of what source shows, and visible [H, W]: seen in target too (not hidden, in view)."""
    height, width = depth.shape
    boxes = screen_boxes(target, target_view, height, width)
    r = source_view.c2w
    q = target_view.c2w
    for i in range(height):
        y = (i + 0.5 - source_view.cy) / source_view.focal
        for j in range(width):
            x = (j + 0.5 - source_view.cx) / source_view.focal
            dx = r[0, 0] * x + r[0, 1] * y + r[0, 2]
            dy = r[1, 0] * x + r[1, 1] * y + r[1, 2]
            dz = r[2, 0] * x + r[2, 1] * y + r[2, 2]
            p = index[i, j]
            if p < 0:  # a direction at infinity
                u, v, z = _project(target_view, q[0, 3] + dx, q[1, 3] + dy, q[2, 3] + dz)
                limit = FAR
            else:
                d = depth[i, j]
                wx = r[0, 3] + d * dx
                wy = r[1, 3] + d * dy
                wz = r[2, 3] + d * dz
                m = source.w2l[p]
                lx = m[0, 0] * wx + m[0, 1] * wy + m[0, 2] * wz + m[0, 3]
                ly = m[1, 0] * wx + m[1, 1] * wy + m[1, 2] * wz + m[1, 3]
                lz = m[2, 0] * wx + m[2, 1] * wy + m[2, 2] * wz + m[2, 3]
                m = target.l2w[p]
                u, v, z = _project(
                    target_view,
                    m[0, 0] * lx + m[0, 1] * ly + m[0, 2] * lz + m[0, 3],
                    m[1, 0] * lx + m[1, 1] * ly + m[1, 2] * lz + m[1, 3],
                    m[2, 0] * lx + m[2, 1] * ly + m[2, 2] * lz + m[2, 3],
                )
                limit = z * (1.0 - 2e-3) - 1e-3
            if z < NEAR:
                flow[i, j, 0] = np.nan
                flow[i, j, 1] = np.nan
                visible[i, j] = False
                continue
            flow[i, j, 0] = u - (j + 0.5)
            flow[i, j, 1] = v - (i + 0.5)
            seen = u >= 0.0 and v >= 0.0 and u <= width and v <= height
            if seen:
                _, blocker = cast_pixel(target, texels, offsets, target_view, boxes, u, v, limit)
                seen = blocker < 0
            visible[i, j] = seen


@kernel
@no_type_check
def follow_points(prims, texels, offsets, view, height, width, local, owner, pixels, points, visible):
    """Where the surface points local [N, 3] of primitives owner [N] are in one frame.

    Fills pixels [N, 2] (NaN behind the camera), points [N, 3] (world) and visible [N].
    """
    boxes = screen_boxes(prims, view, height, width)
    for n in range(local.shape[0]):
        m = prims.l2w[owner[n]]
        for c in range(3):
            points[n, c] = m[c, 0] * local[n, 0] + m[c, 1] * local[n, 1] + m[c, 2] * local[n, 2] + m[c, 3]
        u, v, z = _project(view, points[n, 0], points[n, 1], points[n, 2])
        seen = z > NEAR and u >= 0.0 and v >= 0.0 and u <= width and v <= height
        if z <= NEAR:
            u = np.nan
            v = np.nan
        pixels[n, 0] = u
        pixels[n, 1] = v
        if seen:
            limit = z * (1.0 - 2e-3) - 1e-3
            _, blocker = cast_pixel(prims, texels, offsets, view, boxes, u, v, limit)
            seen = blocker < 0
        visible[n] = seen
