"""Exact flow, and where surface points are in another frame; hidden ones are told."""

from typing import no_type_check

import numpy as np

from geo4d.synthetic.kernels.cast import cast_pixel, screen_boxes
from geo4d.synthetic.kernels.compiled import kernel
from geo4d.synthetic.kernels.inputs import FAR, NEAR


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
