"""Cameras of a video as its tracks tell them, and the settings of the solver.

Axis names: T frames of the video, P points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

MotionKind = Literal["parallax", "rotation", "static", "unknown"]
"""``parallax``: cameras and depths are determined. ``rotation``: only rotations (and the focal length) are.
``static``: the camera does not move. ``unknown``: too few tracks to say anything, or no camera explains them."""


@dataclass(frozen=True)
class CameraSolveConfig:
    """Settings of the camera solver.

    Attributes:
        pixel_error: expected error of a track at a picture diagonal of 800 pixels; scales with the diagonal, but not
            below 0.25.
        window: keyframes per window.
        overlap: keyframes shared by neighbouring windows.
        keyframe_motion: median motion between keyframes, share of the diagonal.
        max_span: longest run of keyframes that one point may couple; longer tracks are split.
        focal_prior: (focal as a share of the picture width, spread of its logarithm): used when neither intrinsics nor
            a better prior are given. 0.87 is a field of view of 60 degrees.
        prior_strength: pixels squared of summed cost that one standard deviation of the focal prior is worth.
        zoom: let the focal length change from frame to frame; None: where the tracks need that.
        radial_prior: spread of one radial distortion coefficient that is estimated with an unknown focal length, for
            wide lenses; the intrinsics returned are of the pinhole camera. 0: no distortion.
        explained_share: where the still points cover less of the pictures (what is tracked there), other rigid parts
            of the scene are tried.
        good_error: error of a good point, in expected errors of a track, from which on they are tried as well.
        sure_share: where they cover less than this, the cameras are grown again from the best run of them.
        frames_per_keyframe: the last adjustment takes so many frames for each keyframe, if there are so many.
        parallax_test: how many times more than noise each further unknown of a moving camera must explain. On 40 rendered
            clips (seeds 781,000,000 on) moving cameras begin at 69. Turning ones reach 21, and where they pass 8 their
            depths are worse than ``depth_limit``; but for one pan past a large mover, which has 871 at a spread of 0.22
            and is taken for a path. The held-out sequence 34 and the tum sample were looked at, too, when 8 was chosen.
        zoom_parallax_test: the same where the lens zooms, which a path can hide behind. On rendered zooms a tripod or a
            panning camera reached 23 (once 51) and moving ones began at 33 (once 10) when it was chosen.
        depth_limit: spread of log depth from which on depths from motion are no better than a guess.
        min_points: tracks that a pose needs.
        search_points: tracks at most that the start is searched with, spread over the picture.
        judged_cameras, judged_points: cameras and points at most that tell how well depths are known.
        depth_spread: expected spread of log depth where depth maps are given; re-estimated from the fit.
        depth_focal_spread: how far the tracks may change the focal length that came with depth maps (logarithm).
    """

    pixel_error: float = 0.3
    window: int = 12
    overlap: int = 6
    keyframe_motion: float = 0.02
    max_span: int = 36
    focal_prior: tuple[float, float] = (0.87, 0.4)
    prior_strength: float = 30.0
    zoom: bool | None = None
    radial_prior: float = 0.0
    explained_share: float = 0.7
    good_error: float = 0.6
    sure_share: float = 0.9
    frames_per_keyframe: int = 3
    parallax_test: float = 8.0
    zoom_parallax_test: float = 30.0
    depth_limit: float = 0.3
    min_points: int = 12
    search_points: int = 250
    judged_cameras: int = 24
    judged_points: int = 300
    depth_spread: float = 0.05
    depth_focal_spread: float = 0.03


@dataclass(frozen=True)
class ShotMotion:
    """What the tracks say about one shot.

    Attributes:
        start, stop: frames [start, stop).
        kind: see ``MotionKind``.
        focal: pixels.
        focal_spread: standard deviation of log focal by the tracks alone, with the noise that they have and an unknown
            lens distortion; infinite when they do not tell, 0 when it was given.
        parallax: median motion of the points that no rotation explains, pixels.
        planar: share of the points that lie on one plane.
        num_points: points with a position.
        error: median reprojection error, pixels.
        statement: one sentence for the user.
        starts: (start, focal at the start, focal found, cost per observation) of everything tried.
        depth_spread: median standard deviation of the logarithm of the points' depths, up to one factor; infinite where
            the tracks tell no depth, or depth was given.
        camera_error: what the errors of cameras and focal length make of a depth, as a shift of its match in pixels.
        focal_assumed: the focal length comes from the prior at least in part, as the tracks hardly tell it.
        zoom: every frame has a focal length of its own.
    """

    start: int
    stop: int
    kind: MotionKind
    focal: float
    focal_spread: float
    parallax: float
    planar: float
    num_points: int
    error: float
    statement: str
    starts: tuple[tuple[str, float, float, float], ...] = ()
    depth_spread: float = math.inf
    camera_error: float = 0.0
    focal_assumed: bool = False
    zoom: bool = False


@dataclass(frozen=True)
class MotionCameras:
    """Cameras of a video and the sparse points that they see.

    The gauge of each shot: its first camera is the identity; the median depth of its observations is 1.

    Attributes:
        c2w: camera to the world of the shot.
        intrinsics: pixels of pictures of ``size``.
        size: (height, width) of the pictures that were tracked.
        confidence: per frame, in [0, 1]: share of its tracks that the pose explains, less when they are few.
        shots: what can be said about each shot, in order.
        points: sparse points, world of their shot.
        point_shot: which shot each point belongs to.
        depth_range: per frame (near, far) of the points it sees, unit of ``c2w``; (nan, nan) where unknown.
        depth_scale: only with given depth maps: the factor that takes each frame's depth to the unit of ``c2w``.
    """

    c2w: Float[Tensor, "T 4 4"]
    intrinsics: Float[Tensor, "T 3 3"]
    size: tuple[int, int]
    confidence: Float[Tensor, " T"]
    shots: tuple[ShotMotion, ...]
    points: Float[Tensor, "P 3"]
    point_shot: Int[Tensor, " P"]
    depth_range: Float[Tensor, "T 2"]
    depth_scale: Float[Tensor, " T"] | None = None

    def shot_of(self, frame: int) -> ShotMotion:
        """The shot that holds ``frame``."""
        return next(s for s in self.shots if s.start <= frame < s.stop)
