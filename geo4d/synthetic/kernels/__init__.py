"""Ray casting of affine unit shapes, compiled by numba and cached on disk. Frames in, pixels out; no randomness.

Importing this package needs numba (extra ``synthetic``); ``render.py`` turns its absence into a clear error.
"""

from geo4d.synthetic.kernels.cast import cast_frame, cast_pixel, screen_boxes
from geo4d.synthetic.kernels.develop import develop_frame
from geo4d.synthetic.kernels.follow import flow_frame, follow_points
from geo4d.synthetic.kernels.hit import terrain_height
from geo4d.synthetic.kernels.inputs import FAR, NEAR, Environment, Primitives, View
from geo4d.synthetic.kernels.shade import shade_frame

__all__ = [
    "FAR",
    "NEAR",
    "Environment",
    "Primitives",
    "View",
    "cast_frame",
    "cast_pixel",
    "develop_frame",
    "flow_frame",
    "follow_points",
    "screen_boxes",
    "shade_frame",
    "terrain_height",
]
