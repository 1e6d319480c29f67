"""Linear light of each pixel: sky, textures, lamp or sun, shadows, fog."""

import math
from typing import no_type_check

import numpy as np

from geo4d.synthetic.kernels.compiled import kernel
from geo4d.synthetic.kernels.hit import hit
from geo4d.synthetic.kernels.textures import texel, texel_color
from geo4d.synthetic.shapes import CONE, CYLINDER, SPHERE, TERRAIN


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
            t = hit(
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
def _sky(environment, texels, offsets, dx, dy, dz, length, clouds):
    """Colour in a direction: from the horizon to the zenith, with a plane of clouds when ``clouds``."""
    up = -dy / length
    g = max(0.0, min(1.0, up * 1.6 + 0.1))
    cover = 0.0
    if clouds and up > 0.0:
        # a plane of clouds above, seen in perspective
        cu = 0.12 * dx / length / (up + 0.12)
        cv = 0.12 * dz / length / (up + 0.12)
        noise = texel(texels, offsets, environment.cloud_texture, cu, cv, 0, 3)
        cover = (noise - environment.cloud_level) * environment.cloud_contrast
        cover = max(0.0, min(1.0, cover)) * min(1.0, up * 5.0)
    s0 = environment.horizon[0] * (1.0 - g) + environment.zenith[0] * g
    s1 = environment.horizon[1] * (1.0 - g) + environment.zenith[1] * g
    s2 = environment.horizon[2] * (1.0 - g) + environment.zenith[2] * g
    s0 += (environment.cloud[0] - s0) * cover
    s1 += (environment.cloud[1] - s1) * cover
    s2 += (environment.cloud[2] - s2) * cover
    return s0, s1, s2


@kernel
@no_type_check
def _gradient(shape, terrain, lx, ly, lz, wx, wz):
    """Gradient of the surface in the local frame, and whether its texture runs around the axis."""
    gx, gy, gz = 0.0, 0.0, 0.0
    wrapped = False
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
        for k in range(terrain.shape[0]):
            w = terrain[k]
            slope = w[2] * math.cos(w[0] * wx + w[1] * wz + w[3])
            gx -= slope * w[0]
            gz -= slope * w[1]
    elif abs(lx) > abs(ly) and abs(lx) > abs(lz):
        gx = 1.0 if lx > 0.0 else -1.0
    elif abs(ly) > abs(lz):
        gy = 1.0 if ly > 0.0 else -1.0
    else:
        gz = 1.0 if lz > 0.0 else -1.0
    return gx, gy, gz, wrapped


@kernel
@no_type_check
def _surface_color(prims, texels, offsets, p, lx, ly, lz, wx, wz, gx, gy, gz, wrapped, footprint):
    """Texture of primitive p where a ray meets it. footprint: of the pixel, in texels."""
    shape = prims.shape[p]
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
    level = 0
    while footprint > 1.3 and level < 8:
        footprint *= 0.5
        level += 1
    t0, t1, t2 = texel_color(texels, offsets, prims.texture[p], u, v, level)
    if scale < 2.0 and shape != SPHERE:
        # a coarse copy of the noise channel hides the repetition on large surfaces
        patch = 0.7 + 0.6 * texel(
            texels, offsets, prims.texture[p], u * 0.137, v * 0.137, min(8, max(0, level - 3)), 3
        )
        t0 *= patch
        t1 *= patch
        t2 *= patch
    return t0, t1, t2


@kernel
@no_type_check
def _light_from(environment, wx, wy, wz):
    """Unit direction from a point to the lamp or the sun, distance up to which shadows fall, strength."""
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
    return vx, vy, vz, reach, strength


@kernel
@no_type_check
def _highlight(nx, ny, nz, vx, vy, vz, dx, dy, dz, length):
    """Share of the light that a glossy surface throws to the camera: power 32 of the half-way cosine."""
    hx = vx - dx / length
    hy = vy - dy / length
    hz = vz - dz / length
    half = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
    cosine = max(0.0, (nx * hx + ny * hy + nz * hz) / half)
    cosine *= cosine
    cosine *= cosine
    cosine *= cosine
    cosine *= cosine
    cosine *= cosine
    return cosine


@kernel
@no_type_check
def _shade_surface(prims, environment, texels, offsets, spheres, radii, p, d, o, dx, dy, dz, length, focal):
    """Linear light that primitive p sends to the camera at o along a ray, at depth d, before fog."""
    wx = o[0] + d * dx
    wy = o[1] + d * dy
    wz = o[2] + d * dz
    m = prims.w2l[p]
    lx = m[0, 0] * wx + m[0, 1] * wy + m[0, 2] * wz + m[0, 3]
    ly = m[1, 0] * wx + m[1, 1] * wy + m[1, 2] * wz + m[1, 3]
    lz = m[2, 0] * wx + m[2, 1] * wy + m[2, 2] * wz + m[2, 3]
    gx, gy, gz, wrapped = _gradient(prims.shape[p], prims.terrain, lx, ly, lz, wx, wz)
    n0 = m[0, 0] * gx + m[1, 0] * gy + m[2, 0] * gz
    n1 = m[0, 1] * gx + m[1, 1] * gy + m[2, 1] * gz
    n2 = m[0, 2] * gx + m[1, 2] * gy + m[2, 2] * gz
    norm = math.sqrt(n0**2 + n1**2 + n2**2) + 1e-12
    facing = (n0 * dx + n1 * dy + n2 * dz) / norm / length
    flip = -1.0 / norm if facing > 0.0 else 1.0 / norm
    nx = n0 * flip
    ny = n1 * flip
    nz = n2 * flip
    facing = abs(facing)
    footprint = d * length / focal * prims.texture_scale[p] * 256.0 / max(0.3, facing)
    t0, t1, t2 = _surface_color(prims, texels, offsets, p, lx, ly, lz, wx, wz, gx, gy, gz, wrapped, footprint)
    vx, vy, vz, reach, strength = _light_from(environment, wx, wy, wz)
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
        shine = prims.specular[p] * lit * _highlight(nx, ny, nz, vx, vy, vz, dx, dy, dz, length)
    return (
        t0 * prims.tint[p, 0] * amount + shine,
        t1 * prims.tint[p, 1] * amount + shine,
        t2 * prims.tint[p, 2] * amount + shine,
    )


@kernel
@no_type_check
def shade_frame(prims, environment, texels, offsets, view, depth, index, color):
    """Fill color [H, W, 3] (linear light, unbounded) of what cast_frame found."""
    height, width = depth.shape
    spheres, radii = _object_spheres(prims)
    r = view.c2w
    origin = (r[0, 3], r[1, 3], r[2, 3])
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
                s0, s1, s2 = _sky(environment, texels, offsets, dx, dy, dz, length, p < 0)
            if p < 0:
                color[i, j, 0] = s0
                color[i, j, 1] = s1
                color[i, j, 2] = s2
                continue
            c0, c1, c2 = _shade_surface(
                prims,
                environment,
                texels,
                offsets,
                spheres,
                radii,
                p,
                d,
                origin,
                dx,
                dy,
                dz,
                length,
                view.focal,
            )
            clear = 1.0 - veil
            color[i, j, 0] = c0 * clear + s0 * veil
            color[i, j, 1] = c1 * clear + s1 * veil
            color[i, j, 2] = c2 * clear + s2 * veil
