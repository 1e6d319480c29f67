"""Where a ray meets a unit shape, holes of its texture left out."""

import math
from typing import no_type_check

from geo4d.synthetic.kernels.compiled import kernel
from geo4d.synthetic.kernels.inputs import NEAR
from geo4d.synthetic.kernels.textures import texel
from geo4d.synthetic.shapes import BOX, CYLINDER, SPHERE


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
def hit_terrain(waves, ox, oy, oz, dx, dy, dz, limit):
    """Ray parameter at the surface y = -sum a sin(fx x + fz z + phase), -1 where it misses within ``limit``."""
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
def hit(shape, ox, oy, oz, dx, dy, dz, start, far_side):
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
    return texel(texels, offsets, prims.texture[p], u * scale, v * scale, 1, 3) > prims.cutout[p]


@kernel
@no_type_check
def hit_primitive(prims, texels, offsets, p, lox, loy, loz, ldx, ldy, ldz, limit):
    """First hit nearer than limit of primitive p by a ray in its local frame, holes respected, else -1."""
    t = hit(prims.shape[p], lox, loy, loz, ldx, ldy, ldz, NEAR, False)
    if t <= 0.0 or t >= limit or prims.cutout[p] < 0.0:
        return t if t < limit else -1.0
    if _solid_at(prims, texels, offsets, p, lox + t * ldx, loy + t * ldy, loz + t * ldz):
        return t
    t = hit(prims.shape[p], lox, loy, loz, ldx, ldy, ldz, NEAR, True)
    if t <= 0.0 or t >= limit:
        return -1.0
    if _solid_at(prims, texels, offsets, p, lox + t * ldx, loy + t * ldy, loz + t * ldz):
        return t
    return -1.0
