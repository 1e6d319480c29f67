"""Texels of the bank: one channel or a colour, between four neighbours."""

import math
from typing import no_type_check

from geo4d.synthetic.kernels.compiled import kernel


@kernel
@no_type_check
def neighbours(offsets, u, v, level):
    """Where the four texels around a point are: start of the level, its size, two columns, two rows, and the shares of
    the second column and row. ``u`` and ``v`` in periods of the texture."""
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
    return base, size, x0, x1, y0, y1, fx, fy


@kernel
@no_type_check
def texel(texels, offsets, texture, u, v, level, channel):
    """One channel at (u, v), in [0, 1]; ``level`` halves the texture so many times."""
    base, size, x0, x1, y0, y1, fx, fy = neighbours(offsets, u, v, level)
    row0 = base + y0 * size
    row1 = base + y1 * size
    top = texels[texture, row0 + x0, channel] * (1.0 - fx) + texels[texture, row0 + x1, channel] * fx
    bottom = texels[texture, row1 + x0, channel] * (1.0 - fx) + texels[texture, row1 + x1, channel] * fx
    return (top * (1.0 - fy) + bottom * fy) * (1.0 / 255.0)


@kernel
@no_type_check
def texel_color(texels, offsets, texture, u, v, level):
    """Three channels at (u, v), each in [0, 1]; ``level`` halves the texture so many times."""
    base, size, x0, x1, y0, y1, fx, fy = neighbours(offsets, u, v, level)
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
