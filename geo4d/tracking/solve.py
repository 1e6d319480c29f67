"""Cameras of a whole video from its 2D tracks: keyframes, a searched start, windows chained, one global adjustment.

Every shot is solved on its own, in a world whose origin is its first camera and whose unit is the median depth of its
points. What the tracks cannot tell is said, not guessed: a shot without parallax gets rotations and zero translation, a
frame without points gets an interpolated pose with confidence 0.

Axis names: T frames of the video, N keyframes of a shot, P points, O observations.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.fit import fit_camera_pose, fit_similarity_robust
from geo4d.geometry.poses import (
    interpolate_rigid,
    inverse,
    relative,
    rigid,
    rotation_angle,
    similarity_parts,
    so3_log,
)
from geo4d.tracking.bundle import (
    BundleConfig,
    BundleResult,
    BundleState,
    Observations,
    bundle_adjust,
    reprojection_error,
    rescale,
    robust_cost,
    tidy,
    triangulate,
)
from geo4d.tracking.judge import DepthJudgement, judge_depth, mean_directions
from geo4d.tracking.refine import Refined, refine, repair, try_other_parts
from geo4d.tracking.start import (
    MOVER_LIMIT,
    StartResult,
    bearing,
    find_start,
    fit_rotation,
    point_error,
    rotation_chain,
    shared_points,
    spread_points,
)
from geo4d.tracking.tracks import Tracks

MotionKind = Literal["parallax", "rotation", "static", "unknown"]
"""``parallax``: cameras and depths are determined. ``rotation``: only rotations (and the focal length) are.
``static``: the camera does not move. ``unknown``: too few tracks to say anything, or no camera explains them."""


ASSUMED_FOCAL = 0.1
"""Spread of the logarithm of a focal length from tracks above which the prior has its say."""


LEAST_EXPLAINED = 0.2
"""Confidence (share of the tracks explained) of most frames of a shot below which its cameras are not believed at all."""


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
        zoom: let the focal length change from frame to frame.
        radial_prior: spread of one radial distortion coefficient that is estimated with an unknown focal length, for
            wide lenses; the intrinsics returned are of the pinhole camera. 0: no distortion.
        explained_share: where the still points cover less of the pictures (what is tracked there), other rigid parts
            of the scene are tried.
        good_error: error of a good point, in expected errors of a track, from which on they are tried as well.
        sure_share: where they cover less than this, the cameras are grown again from the best run of them.
        frames_per_keyframe: the last adjustment takes so many frames for each keyframe, if there are so many.
        parallax_test: how many times more than noise a translation must improve the fit to be believed.
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
    zoom: bool = False
    radial_prior: float = 0.0
    explained_share: float = 0.7
    good_error: float = 0.6
    sure_share: float = 0.9
    frames_per_keyframe: int = 3
    parallax_test: float = 4.0
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


def fit_cameras(
    tracks: Tracks,
    *,
    intrinsics: Float[Tensor, "*t 3 3"] | None = None,
    focal_prior: tuple[float, float] | None = None,
    config: CameraSolveConfig | None = None,
    progress: Callable[[float], None] | None = None,
) -> MotionCameras:
    """Cameras of all frames from tracks alone.

    The first camera of every shot is the identity; the median depth of its observations is 1.

    Args:
        tracks: see ``track_points``.
        intrinsics: known, [3, 3] or one per frame, pixels of the tracked pictures; None estimates one focal length per
            shot with the principal point in the middle.
        focal_prior: (median focal in pixels, spread of its logarithm), for instance from a depth predictor.
        config: see ``CameraSolveConfig``.
        progress: called with the share done.
    Returns:
        cameras with confidence; never raises for a video without motion or features.
    Raises:
        ValueError: intrinsics of the wrong length.
    """
    return _solve_shots(tracks, intrinsics, focal_prior, None, False, config or CameraSolveConfig(), progress)


def solve_with_depth(
    tracks: Tracks,
    depth: Iterable[Float[Tensor, "H W"]],
    intrinsics: Float[Tensor, "*t 3 3"],
    *,
    per_frame_scale: bool = False,
    config: CameraSolveConfig | None = None,
    progress: Callable[[float], None] | None = None,
) -> MotionCameras:
    """Cameras of all frames from tracks and the depth maps of a predictor.

    Points are unknown; every observation measures its position and, where the depth map is smooth, its log depth. The
    first camera of every shot is the identity; translations have the unit of ``depth``.

    Args:
        tracks: see ``track_points``.
        depth: z-depth of every frame, in order, any size with the shape of the tracked pictures; not finite or not
            positive where unknown.
        intrinsics: pixels of the tracked pictures, [3, 3] or one per frame; the focal length is refined by one common
            factor within ``depth_focal_spread``.
        per_frame_scale: the depth of every frame has a scale of its own (single-image predictors).
        config: see ``CameraSolveConfig``.
        progress: called with the share done.
    Raises:
        ValueError: intrinsics or depth of the wrong length.
    Source: GeometryCrafter, supplement, Eq. (9) and (10), with the depth term that its code leaves out.
    """
    log_depth = sample_log_depth(tracks, depth)
    return _solve_shots(
        tracks, intrinsics, None, log_depth, per_frame_scale, config or CameraSolveConfig(), progress
    )


def sample_log_depth(
    tracks: Tracks, depth: Iterable[Float[Tensor, "H W"]], *, edge_ratio: float = 1.15
) -> Float[Tensor, " O"]:
    """Log depth at every observation; NaN where unknown or at an edge.

    An edge is where 3x3 pixels differ by ``edge_ratio``, and by twice what they do elsewhere (noisy maps).
    """
    spread = torch.full((len(tracks.frame),), torch.nan, dtype=torch.float64)
    result = torch.full((len(tracks.frame),), torch.nan, dtype=torch.float64)
    order = tracks.frame.argsort(stable=True)
    counts = torch.bincount(tracks.frame, minlength=tracks.num_frames).tolist()
    seen = 0
    for frame, rows in zip(depth, order.split(counts), strict=False):
        seen += 1
        size = (frame.shape[0], frame.shape[1])
        log_map = torch.where(torch.isfinite(frame) & (frame > 0), frame, torch.nan).double().log()
        factor = torch.tensor([size[1] / tracks.size[1], size[0] / tracks.size[0]])
        xy = tracks.xy[rows] * factor - 0.5
        low = xy.floor().long()
        share = (xy - low).double()
        x = (low[:, 0, None] + torch.tensor([0, 1, 0, 1])).clamp(0, size[1] - 1)
        y = (low[:, 1, None] + torch.tensor([0, 0, 1, 1])).clamp(0, size[0] - 1)
        corners = log_map[y, x]
        mix = torch.stack([(1 - share[:, 0]), share[:, 0]], 1).repeat(1, 2)
        mix = mix * torch.stack([(1 - share[:, 1]), share[:, 1]], 1).repeat_interleave(2, 1)
        value = (corners * mix).sum(1)
        centre = xy.round().long()
        offsets = torch.tensor([-1, 0, 1])
        around = log_map[
            (centre[:, 1, None, None] + offsets[:, None]).clamp(0, size[0] - 1),
            (centre[:, 0, None, None] + offsets).clamp(0, size[1] - 1),
        ].flatten(1)
        spread[rows] = around.amax(1) - around.amin(1)
        result[rows] = value
    if seen != tracks.num_frames:
        raise ValueError(f"expected {tracks.num_frames} depth maps, got {seen}")
    usual = float(torch.nan_to_num(spread.nanmedian(), nan=0.0)) if len(spread) else 0.0
    return torch.where(spread < max(math.log(edge_ratio), 2 * usual), result, torch.nan)


def _solve_shots(
    tracks: Tracks,
    intrinsics: Float[Tensor, "*t 3 3"] | None,
    focal_prior: tuple[float, float] | None,
    log_depth: Float[Tensor, " O"] | None,
    per_frame_scale: bool,
    config: CameraSolveConfig,
    progress: Callable[[float], None] | None,
) -> MotionCameras:
    num_frames = tracks.num_frames
    if intrinsics is not None:
        intrinsics = intrinsics.double()
        if intrinsics.ndim == 2:
            intrinsics = intrinsics.expand(num_frames, 3, 3)
        if len(intrinsics) != num_frames:
            raise ValueError(
                f"expected intrinsics [3, 3] or [{num_frames}, 3, 3], got {tuple(intrinsics.shape)}"
            )
    starts = tracks.starts_shot.nonzero()[:, 0].tolist()
    stops = starts[1:] + [num_frames]
    solved: list[_ShotSolution] = []
    with single_thread():
        for start, stop in zip(starts, stops, strict=True):
            shot = _Shot(tracks, start, stop, intrinsics, focal_prior, config)
            solved.append(
                shot.solve() if log_depth is None else shot.solve_with_depth(log_depth, per_frame_scale)
            )
            if progress is not None:
                progress(stop / num_frames)
    return _assemble(solved, tracks, intrinsics)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """One torch thread inside: the arrays of this solver are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _ShotSolution:
    motion: ShotMotion
    w2c: Float[Tensor, "F 4 4"]
    focal: Float[Tensor, " F"]
    confidence: Float[Tensor, " F"]
    points: Float[Tensor, "P 3"]
    depth_range: Float[Tensor, "F 2"]
    depth_scale: Float[Tensor, " F"] | None = None


def _assemble(solved: list[_ShotSolution], tracks: Tracks, known: Tensor | None) -> MotionCameras:
    # A shot of a blink (black frame) has no evidence of its own: it takes the focal length of the longest other one.
    best = max(solved, key=lambda s: float(s.confidence.sum()))
    focal = torch.cat(
        [
            s.focal if s.motion.kind != "unknown" else torch.full_like(s.focal, float(best.focal.median()))
            for s in solved
        ]
    )
    scales = [s.depth_scale for s in solved if s.depth_scale is not None]
    matrices = centred_intrinsics(focal, tracks.size)
    if known is not None:
        # The solver may have changed the focal length by a common factor (depth maps); the rest stays as given.
        matrices = known.clone()
        matrices[:, :2, :2] *= (focal / known[:, 0, 0])[:, None, None]
    return MotionCameras(
        c2w=inverse(torch.cat([s.w2c for s in solved])),
        intrinsics=matrices,
        size=tracks.size,
        confidence=torch.cat([s.confidence for s in solved]).float(),
        shots=tuple(s.motion for s in solved),
        points=torch.cat([s.points for s in solved]).float(),
        point_shot=torch.cat([torch.full((len(s.points),), k) for k, s in enumerate(solved)]),
        depth_range=torch.cat([s.depth_range for s in solved]).float(),
        depth_scale=torch.cat(scales).float() if scales else None,
    )


class _Shot:
    """The solution of one shot while it grows."""

    def __init__(
        self,
        tracks: Tracks,
        start: int,
        stop: int,
        intrinsics: Tensor | None,
        focal_prior: tuple[float, float] | None,
        config: CameraSolveConfig,
    ) -> None:
        self.start, self.stop, self.config = start, stop, config
        self.with_depth = False
        height, width = tracks.size
        self.width, self.height, diagonal = width, height, math.hypot(height, width)
        self.pixel_error = max(0.25, config.pixel_error * diagonal / 800)
        inside = (tracks.frame >= start) & (tracks.frame < stop)
        self.inside = inside
        self.track = tracks.track[inside]
        self.frame = tracks.frame[inside] - start
        xy = tracks.xy[inside].double()
        self.known_focal: Tensor | None = None
        self.track_of_point = torch.zeros(0, dtype=torch.long)
        if intrinsics is None:
            self.uv = xy - torch.tensor([width / 2, height / 2], dtype=torch.float64)
        else:
            K = intrinsics[start:stop]
            self.known_focal = K[:, 0, 0]
            # Every frame's own matrix (skew, fy) is taken out here; the solver sees square pixels of focal fx.
            rays = torch.cat([xy, torch.ones_like(xy[:, :1])], 1)
            rays = (torch.linalg.inv(K)[self.frame] @ rays[..., None])[..., 0]
            self.uv = rays[:, :2] * self.known_focal[self.frame][:, None]
        share, spread = config.focal_prior
        self.prior = focal_prior or (share * width, spread)
        self.focal_spread, self.focal_assumed = (0.0, False) if intrinsics is not None else (math.inf, True)
        self.keyframes = self._choose_keyframes(config.keyframe_motion * diagonal)

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    def solve(self) -> _ShotSolution:
        if self.num_frames < 2 or len(self.keyframes) < 2:
            return self._unknown(
                "only one usable frame" if self.num_frames < 2 else "no tracks between its frames"
            )
        self._collect()
        if self.num_points < self.config.min_points:
            return self._unknown(f"only {self.num_points} tracks")
        begin, end = self._best_window(self.config.window)
        start = self._find_start(begin, end)
        self.moving = torch.zeros(self.num_points, dtype=torch.bool)
        self.moving[self.window_points] = ~start.static
        kind, parallax = self._judge(start, begin, end)
        result = self._grow(start, begin, end) if kind == "parallax" else self._rotations(start)
        best = self._refined(result, kind)
        if self._doubtful(best):
            settings = self._refine_settings("parallax")
            other = try_other_parts(best, self.observations, settings, pixel_error=self.pixel_error)
            if other is not best and kind == "parallax":
                best = repair(other, self.observations, settings)
            elif other is not best:
                believed, pixels = self._judge_refined(other)
                if believed == "parallax":
                    best, kind, parallax = repair(other, self.observations, settings), believed, pixels
        judged = self._judge_depth(best)
        if kind == "parallax" and not self._carries_depth(judged):
            kind, parallax = self._turning_kind(judged.turned), judged.parallax
        if self.known_focal is None:
            best = self._with_focal(best, kind, judged)
        elif kind != "parallax":
            best = self._without_translation(best)
        solution = self._finish(self._as_result(best), kind, parallax, start.scores, judged)
        if float(solution.confidence.median()) < LEAST_EXPLAINED:
            return self._unknown("no camera explains its tracks")
        return solution

    def _carries_depth(self, judged: DepthJudgement) -> bool:
        """Whether the translation is real and its depths are better than a guess."""
        return judged.gain > self.config.parallax_test and judged.depth_spread < self.config.depth_limit

    def _with_focal(self, refined: Refined, kind: MotionKind, judged: DepthJudgement) -> Refined:
        """The solution for the believed focal length: that of the tracks, drawn to the prior where they hardly know."""
        found, spread = judged.moving_focal if kind == "parallax" else judged.turning_focal
        if kind == "static":
            spread = math.inf
        own = float(refined.state.log_focal.mean())
        # A lens without distortion that is read at once makes a focal length of the same tracks that differs by so much.
        spread = math.hypot(spread, found - own)
        self.focal_spread, self.focal_assumed = spread, spread > ASSUMED_FOCAL
        if kind == "parallax" and not self.focal_assumed:
            return refined
        log_prior, prior_spread = math.log(self.prior[0]), self.prior[1]
        trust = prior_spread**2 / (prior_spread**2 + spread**2) if math.isfinite(spread) else 0.0
        believed = log_prior + trust * (found - log_prior)
        log_focal = refined.state.log_focal - own + believed
        state = replace(refined.state, log_focal=log_focal)
        if kind != "parallax":
            return self._without_translation(replace(refined, state=state))
        settings = replace(self._refine_settings(kind), focal="fixed")
        return refine(state, self.observations, settings)

    def _without_translation(self, refined: Refined) -> Refined:
        """Rotations alone, for the focal lengths of a solution."""
        log_focal, obs = refined.state.log_focal, self.observations
        N = len(log_focal)
        rotations = rotation_chain(obs, N, float(log_focal.mean().exp()))
        w2c = rigid(rotations, torch.zeros(N, 3, dtype=torch.float64))
        points = mean_directions(w2c, log_focal, obs, self.num_points)
        settings = replace(self._refine_settings("rotation"), focal="fixed")
        return refine(BundleState(w2c, log_focal, points), obs, settings)

    def _judge_depth(self, refined: Refined) -> DepthJudgement:
        """What the still points of a run of cameras say about depth and focal length: the run that moves most."""
        begin, end = self._best_window(self.config.judged_cameras)
        obs = self.observations
        inside = (obs.camera >= begin) & (obs.camera < end) & refined.static[obs.point]
        count = torch.bincount(obs.point[inside], minlength=self.num_points)
        member = count >= min(3, end - begin)
        keep = inside & member[obs.point]
        sub = obs.select(keep, (torch.cumsum(member, 0) - 1)[obs.point[keep]])
        chosen = member.nonzero()[:, 0]
        few = spread_points(sub, len(chosen), self.config.judged_points)
        keep = few[sub.point]
        sub = sub.select(keep, (torch.cumsum(few, 0) - 1)[sub.point[keep]])
        sub = replace(sub, camera=sub.camera - begin, weight=torch.ones(len(sub.point), dtype=torch.float64))
        state = refined.state
        state = BundleState(
            state.w2c[begin:end], state.log_focal[begin:end], state.points[chosen[few]], state.radial
        )
        return judge_depth(
            state,
            sub,
            self._spin(self.keyframes[begin:end].tolist(), float(state.log_focal.mean().exp())),
            self.height,
            self._refine_settings("parallax"),
            pixel_error=self.pixel_error,
        )

    def _spin(self, frames: list[int], focal: float) -> Float[Tensor, "N 2 3"]:
        """Rotation per frame of the video around each of some frames, and its change, by what the tracks do there."""
        by_frame = self._by_frame()

        def turn(first: int, second: int) -> Tensor | None:
            if not 0 <= second < self.num_frames:
                return None
            (ids_a, uv_a), (ids_b, uv_b) = by_frame[first], by_frame[second]
            at = torch.searchsorted(ids_a, ids_b).clamp_max(max(len(ids_a) - 1, 0))
            same = ids_a[at] == ids_b if len(ids_a) else torch.zeros(len(ids_b), dtype=torch.bool)
            if int(same.sum()) < self.config.min_points:
                return None
            return so3_log(fit_rotation(bearing(uv_a[at[same]], focal), bearing(uv_b[same], focal), 6))

        spin = torch.zeros(len(frames), 2, 3, dtype=torch.float64)
        for k, f in enumerate(frames):
            before, after = turn(f, f - 1), turn(f, f + 1)
            if before is not None and after is not None:
                spin[k, 0], spin[k, 1] = (after - before) / 2, after + before
                earlier, later = turn(f, f - 2), turn(f, f + 2)
                if earlier is not None and later is not None:
                    spin[k, 0] = (8 * (after - before) - (later - earlier)) / 12
                    spin[k, 1] = (16 * (after + before) - (later + earlier)) / 12
            elif after is not None:
                spin[k, 0] = after
            elif before is not None:
                spin[k, 0] = -before
        return spin

    def _refined(self, result: BundleResult, kind: MotionKind) -> Refined:
        """The solution of the keyframes carried to denser frames, adjusted to what fits; weak ends solved again."""
        explained = torch.zeros(len(result.state.points), dtype=torch.bool)
        explained[self.final_observations.point[self.final_observations.weight > 0]] = True
        w2c, focal = self._all_frames(tidy(result.state), kind, explained)
        few = len(self.keyframes) <= 3
        self.keyframes = self._denser_frames()
        span = self.config.max_span * self.config.frames_per_keyframe
        self._collect(span=span, least=2 if few else 3)
        log_focal = focal[self.keyframes].log()
        w2c = w2c[self.keyframes]
        if kind == "parallax":
            points = triangulate(w2c, log_focal, self.observations, self.num_points)
        else:
            points = mean_directions(w2c, log_focal, self.observations, self.num_points)
        state = BundleState(w2c, log_focal, points, result.state.radial)
        settings = self._refine_settings(kind)
        refined = refine(state, self.observations, settings)
        if kind == "parallax" and refined.share_explained(self.pixel_error) < self.config.sure_share:
            refined = repair(refined, self.observations, settings)
        return refined

    def _doubtful(self, refined: Refined) -> bool:
        """Whether so much stays unexplained, or so badly explained, that it need not be the best solution."""
        loose = refined.level > self.config.good_error * self.pixel_error
        return loose or refined.share_explained(self.pixel_error) < self.config.explained_share

    def _judge_refined(self, refined: Refined) -> tuple[MotionKind, float]:
        """As ``_judge``, for the still points of a whole solution."""
        obs = self.observations
        chosen = replace(obs, weight=refined.static[obs.point].double())
        rows = refined.static[obs.point]
        state = refined.state
        points = mean_directions(state.w2c, state.log_focal, obs, self.num_points)
        w2c = state.w2c.clone()
        w2c[:, :3, 3] = 0
        width = 2 * self.pixel_error
        settings = replace(
            self._refine_settings("rotation"),
            num_iterations=8,
            robust_width=width,
            prior_strength=self.config.prior_strength * self.pixel_error**2,
            reliability=False,
        )
        turned = bundle_adjust(BundleState(w2c, state.log_focal, points), chosen, config=settings)
        moved = reprojection_error(state, obs)
        cost = robust_cost(moved, chosen.weight, width)
        return self._believe(turned, cost, int(refined.static.sum()), rows, len(state.w2c))

    def _denser_frames(self) -> Int[Tensor, " N"]:
        """The keyframes and, evenly between them, at most so many as make ``frames_per_keyframe``."""
        parts = [self.keyframes[-1:]]
        for low, high in itertools.pairwise(self.keyframes.tolist()):
            count = min(self.config.frames_per_keyframe, high - low)
            parts.append(low + torch.arange(count) * (high - low) // count)
        return torch.cat(parts).sort().values

    def _refine_settings(self, kind: MotionKind) -> BundleConfig:
        """For ``refine``: the strength of the prior is in squares of the measured error."""
        return BundleConfig(
            with_translation=kind == "parallax",
            focal=self._focal_mode(),
            focal_prior=None if self.known_focal is not None else self.prior,
            prior_strength=self.config.prior_strength,
            radial_prior=0.0 if self.known_focal is not None else self.config.radial_prior,
        )

    def _as_result(self, refined: Refined) -> BundleResult:
        """The adjustment behind it; sets ``final_observations`` to what it explains."""
        assert refined.result is not None
        error = reprojection_error(refined.state, self.observations)
        near = error < 20 * refined.level
        keep = near & refined.static[self.observations.point]
        self.final_observations = replace(self.observations, weight=keep.double())
        return replace(refined.result, state=refined.state, error=error)

    def solve_with_depth(self, log_depth: Float[Tensor, " O"], per_frame_scale: bool) -> _ShotSolution:
        """As ``solve``, but points start from depth maps, which also measure them; ``log_depth`` of all observations."""
        self.with_depth = True
        solution = self._unknown("too few tracks with depth")
        scale = torch.ones(self.num_frames, dtype=torch.float64)
        if self.num_frames < 2 or len(self.keyframes) < 2:
            return replace(solution, depth_scale=scale)
        self._collect(log_depth[self.inside])
        assert self.observations.log_depth is not None
        if int(torch.isfinite(self.observations.log_depth).sum()) < 2 * self.config.min_points:
            return replace(solution, depth_scale=scale)
        result = self._adjust_with_depth(per_frame_scale)
        parallax = self._parallax_after(self.keyframes.shape[0] // 2)
        solution = self._finish(result, "parallax", parallax, ())
        if not per_frame_scale:
            return replace(solution, depth_scale=scale)
        scale = self._scale_of_frames(solution, log_depth[self.inside])
        # The first frame's own scale is as arbitrary as the others': their median becomes the unit.
        unit = scale.median()
        w2c = solution.w2c.clone()
        w2c[:, :3, 3] /= unit
        return replace(
            solution,
            w2c=w2c,
            points=solution.points / unit,
            depth_range=solution.depth_range / unit,
            depth_scale=scale / unit,
        )

    # Keyframes and observations

    def _choose_keyframes(self, motion: float) -> Int[Tensor, " N"]:
        """Frames between which the picture moves by about ``motion`` pixels; less where the whole shot moves less."""
        frames = self._by_frame()
        wanted = min(self.config.window // 2, self.num_frames)
        chosen = self._walk(frames, motion)
        while len(chosen) < wanted and motion > 0.5 * self.pixel_error:
            motion *= 0.5
            chosen = self._walk(frames, motion)
        if len(chosen) < min(4, self.num_frames):
            chosen = (
                torch.linspace(0, self.num_frames - 1, min(4, self.num_frames))
                .round()
                .long()
                .unique()
                .tolist()
            )
        return torch.tensor(chosen)

    def _by_frame(self) -> list[tuple[Tensor, Tensor]]:
        """Per frame: sorted track numbers and their uv."""
        order = (self.frame * (int(self.track.max()) + 1 if len(self.track) else 1) + self.track).argsort()
        counts = torch.bincount(self.frame, minlength=self.num_frames).tolist()
        return list(zip(self.track[order].split(counts), self.uv[order].split(counts), strict=True))

    def _walk(self, frames: list[tuple[Tensor, Tensor]], motion: float) -> list[int]:
        chosen = [0]
        for f in range(1, self.num_frames):
            last_ids, last_uv = frames[chosen[-1]]
            ids, uv = frames[f]
            if len(ids) == 0:
                continue
            at = torch.searchsorted(last_ids, ids).clamp_max(max(len(last_ids) - 1, 0))
            same = last_ids[at] == ids if len(last_ids) else torch.zeros(len(ids), dtype=torch.bool)
            count = int(same.sum())
            moved = float((uv[same] - last_uv[at[same]]).norm(dim=1).median()) if count else math.inf
            few = count < 0.5 * min(len(last_ids), len(ids)) or count < 2 * self.config.min_points
            if moved > motion or few:
                # When too little is shared, the frame before is the better bridge.
                if few and f - 1 > chosen[-1] and len(frames[f - 1][0]):
                    chosen.append(f - 1)
                if f != chosen[-1] and not (few and count >= self.config.min_points and moved < 0.3 * motion):
                    chosen.append(f)
        last = max((f for f in range(self.num_frames) if len(frames[f][0])), default=0)
        if chosen[-1] != last:
            chosen.append(last)
        return chosen

    def _collect(
        self, log_depth: Float[Tensor, " O"] | None = None, span: int | None = None, least: int = 2
    ) -> None:
        """Observations in keyframes: points seen at least so often, tracks longer than ``span`` keyframes split."""
        span = span or self.config.max_span
        N = len(self.keyframes)
        number = torch.full((self.num_frames,), -1, dtype=torch.long)
        number[self.keyframes] = torch.arange(N)
        camera = number[self.frame]
        rows = (camera >= 0).nonzero()[:, 0]
        camera, track = camera[rows], self.track[rows]
        ids, dense = track.unique(return_inverse=True)
        first = torch.full((len(ids),), N, dtype=torch.long).scatter_reduce(0, dense, camera, "amin")
        piece = (camera - first[dense]).div(span, rounding_mode="floor")
        key = dense * (N + 1) + piece
        pieces, point = key.unique(return_inverse=True)
        often = torch.bincount(point, minlength=len(pieces)) >= least
        keep = often[point]
        renumber = torch.cumsum(often, 0) - 1
        self.observations = Observations(
            camera[keep],
            renumber[point[keep]],
            self.uv[rows][keep],
            torch.ones(int(keep.sum()), dtype=torch.float64),
            None if log_depth is None else log_depth[rows][keep],
        )
        self.num_points = int(often.sum())
        self.track_of_point = ids[pieces[often].div(N + 1, rounding_mode="floor")]

    def _restricted(self, begin: int, end: int) -> tuple[Observations, Tensor]:
        """Observations of keyframes [begin, end) renumbered from 0, of points seen at least twice there, and which."""
        obs = self.observations
        inside = (obs.camera >= begin) & (obs.camera < end)
        count = torch.bincount(obs.point[inside], minlength=self.num_points)
        need = 3 if end - begin > 3 else 2
        chosen = (count >= need).nonzero()[:, 0]
        if len(chosen) < 4 * self.config.min_points:
            chosen = (count >= 2).nonzero()[:, 0]
        member = torch.zeros(self.num_points, dtype=torch.bool)
        member[chosen] = True
        rows = inside & member[obs.point]
        renumber = torch.cumsum(member, 0) - 1
        sub = obs.select(rows, renumber[obs.point[rows]])
        return replace(sub, camera=sub.camera - begin), chosen

    # Start

    def _best_window(self, length: int) -> tuple[int, int]:
        """The window with the most motion that no rotation explains, times its number of points."""
        N = len(self.keyframes)
        if length >= N:
            return 0, N
        focal = float(self.known_focal.median()) if self.known_focal is not None else self.prior[0]
        begins = torch.linspace(0, N - length, min(6, N - length + 1)).round().long().unique().tolist()
        best, score = begins[0], -1.0
        for begin in begins:
            total = 0.0
            for step in (length // 2, length - 1):
                _, uv_a, uv_b = shared_points(self.observations, begin, begin + step)
                if len(uv_a) < self.config.min_points:
                    continue
                a, b = bearing(uv_a, focal), bearing(uv_b, focal)
                left = (b - a @ fit_rotation(a, b, 6).T).norm(dim=1).median()
                total += math.sqrt(len(uv_a)) * float(left)
            if total > score:
                best, score = begin, total
        return best, best + length

    def _find_start(self, begin: int, end: int) -> StartResult:
        """The best solution of the window."""
        sub, chosen = self._restricted(begin, end)
        self.window_points = chosen
        self.window_observations = sub
        return find_start(
            sub,
            end - begin,
            len(chosen),
            width=self.width,
            pixel_error=self.pixel_error,
            focal=None if self.known_focal is None else float(self.known_focal.median()),
            prior=self.prior,
            prior_strength=self.config.prior_strength * self.pixel_error**2,
            search_points=self.config.search_points,
        )

    def _judge(self, start: StartResult, begin: int, end: int) -> tuple[MotionKind, float]:
        """Does a translation explain the tracks so much better than a rotation that it must be real?"""
        rows = start.static[self.window_observations.point]
        count = int(start.static.sum())
        return self._believe(start.rotation_only, start.bundle.cost, count, rows, end - begin)

    def _believe(
        self, turned: BundleResult, cost: float, num_points: int, rows: Bool[Tensor, " O"], num_cameras: int
    ) -> tuple[MotionKind, float]:
        """What is believed, and the median error of the solution without translation, pixels.

        Args:
            turned: the best solution without translation.
            cost: of the best one with it.
            num_points: still points.
            rows: their observations.
        """
        parallax = float(turned.error[rows].median()) if bool(rows.any()) else 0.0
        spare = max(2 * int(rows.sum()) - 3 * num_points - 6 * num_cameras, 1)
        noise = max(cost / spare, (0.1 * self.pixel_error) ** 2)
        gain = (turned.cost - cost) / (num_points + 3 * num_cameras) / noise
        if gain > self.config.parallax_test and parallax > 0.5 * self.pixel_error:
            return "parallax", parallax
        return self._turning_kind(turned), parallax

    def _turning_kind(self, turned: BundleResult) -> MotionKind:
        """Whether a camera without translation turns at all."""
        angle = rotation_angle(relative_rotations(turned.state.w2c)).max()
        moved = float(angle) * float(turned.state.log_focal[0].exp())
        return "rotation" if moved > 2 * self.pixel_error else "static"

    # Depth maps

    def _scale_of_frames(
        self, solution: _ShotSolution, log_depth: Float[Tensor, " O"]
    ) -> Float[Tensor, " F"]:
        """Per frame, median ratio of the solved depth of its points to the measured one; neighbours' where unknown."""
        point = self.point_of_track[self.track]
        rows = ((point >= 0) & torch.isfinite(log_depth)).nonzero()[:, 0]
        X = self.world_points[point[rows]]
        depth = (solution.w2c[self.frame[rows], 2] * X).sum(1) / X[:, 3].clamp_min(1e-9)
        ratio = depth.clamp_min(1e-12).log() - log_depth[rows]
        scale = torch.full((self.num_frames,), torch.nan, dtype=torch.float64)
        for f in range(self.num_frames):
            mine = ratio[(self.frame[rows] == f) & (depth > 0)]
            if len(mine) >= self.config.min_points:
                scale[f] = mine.median()
        known = torch.isfinite(scale).nonzero()[:, 0]
        if len(known) == 0:
            return torch.ones_like(scale)
        nearest = (torch.arange(self.num_frames)[:, None] - known).abs().argmin(1)
        return scale[known[nearest]].exp()

    def _adjust_with_depth(self, per_frame_scale: bool) -> BundleResult:
        """All keyframes with measured depths, each with a scale of its own if asked."""
        obs, N, config = self.observations, len(self.keyframes), self.config
        assert obs.log_depth is not None
        assert self.known_focal is not None
        self.log_focal = self.known_focal[self.keyframes].log()
        has_depth = torch.isfinite(obs.log_depth)
        raw = torch.where(has_depth, obs.log_depth, 0.0)
        log_scale = self._chain_with_depth(has_depth, per_frame_scale)
        points = self._points_from_depth(has_depth, raw + log_scale[obs.camera])
        state = BundleState(self.w2c, self.log_focal, points)
        spread = config.depth_spread
        settings = BundleConfig(
            num_iterations=12,
            robust_width=2 * self.pixel_error,
            focal="shared" if config.depth_focal_spread > 0 else "fixed",
            focal_prior=(
                float(self.known_focal[self.keyframes].log().mean().exp()),
                config.depth_focal_spread or 1.0,
            ),
            prior_strength=config.prior_strength * self.pixel_error**2,
            tolerance=1e-4,
        )
        for turn in range(3):
            weight = has_depth.double() * (self.pixel_error / spread)
            measured = replace(obs, log_depth=raw + log_scale[obs.camera], depth_weight=weight)
            result = bundle_adjust(state, measured, config=settings)
            state = tidy(result.state)
            depth = (state.w2c[obs.camera, 2] * state.points[obs.point]).sum(1)
            depth = depth / state.points[obs.point, 3].clamp_min(1e-6)
            usable = has_depth & (depth > 0) & (result.error < 8 * self.pixel_error)
            left = depth.clamp_min(1e-9).log() - raw - log_scale[obs.camera]
            if per_frame_scale:
                for c in range(1, N):
                    mine = left[usable & (obs.camera == c)]
                    if len(mine) >= config.min_points:
                        change = mine.median()
                        log_scale[c] += change
                        left[obs.camera == c] -= change
            if bool(usable.any()):
                spread = float((1.48 * left[usable].abs().median()).clamp(0.003, 0.3))
            if turn == 1:
                obs = replace(obs, weight=(result.error < 8 * self.pixel_error).double())
                settings = replace(settings, robust_width=self.pixel_error, num_iterations=20, tolerance=1e-6)
        self.final_observations = obs
        return result

    def _chain_with_depth(self, has_depth: Tensor, per_frame_scale: bool) -> Float[Tensor, " N"]:
        """Start of ``w2c``: every keyframe aligned to the one before by the lifted points that both see."""
        obs, N = self.observations, len(self.keyframes)
        assert obs.log_depth is not None
        lifted = self._lift(torch.where(has_depth, obs.log_depth, 0.0))
        w2c = [torch.eye(4, dtype=torch.float64)]
        log_scale = torch.zeros(N, dtype=torch.float64)
        row_before = torch.full((self.num_points,), -1, dtype=torch.long)
        rows = ((obs.camera == 0) & has_depth).nonzero()[:, 0]
        row_before[obs.point[rows]] = rows
        for c in range(1, N):
            rows = ((obs.camera == c) & has_depth).nonzero()[:, 0]
            shared = rows[row_before[obs.point[rows]] >= 0]
            motion = torch.eye(4, dtype=torch.float64)
            log_scale[c] = log_scale[c - 1]
            if len(shared) >= self.config.min_points:
                before = lifted[row_before[obs.point[shared]]] * log_scale[c - 1].exp()
                now = lifted[shared] * log_scale[c - 1].exp()
                near = 1 / before.norm(dim=1).clamp_min(1e-9)
                fit = fit_similarity_robust(before, now, near, with_scale=per_frame_scale)
                scale, R, t = similarity_parts(fit)
                log_scale[c] -= scale.log() if per_frame_scale else 0.0
                rays = torch.cat([obs.uv[shared], self.log_focal[c].exp().expand(len(shared), 1)], 1)
                motion = fit_camera_pose(
                    before,
                    rays / rays[:, 2:],
                    initial_w2c=rigid(R, t / scale),
                    robust_width=float(2 * self.pixel_error / self.log_focal[c].exp()),
                )
            w2c.append(motion @ w2c[-1])
            row_before.fill_(-1)
            row_before[obs.point[rows]] = rows
        self.w2c = torch.stack(w2c)
        return log_scale

    def _lift(self, log_depth: Float[Tensor, " O"]) -> Float[Tensor, "O 3"]:
        """Camera-frame points of the observations."""
        rays = self.observations.uv / self.log_focal[self.observations.camera].exp()[:, None]
        return torch.cat([rays, torch.ones_like(rays[:, :1])], 1) * log_depth.exp()[:, None]

    def _points_from_depth(self, has_depth: Tensor, log_depth: Tensor) -> Float[Tensor, "P 4"]:
        """Points from their first observation with depth; the others by triangulation."""
        obs = self.observations
        points = triangulate(self.w2c, self.log_focal, obs, self.num_points)
        first = torch.full((self.num_points,), len(obs.point), dtype=torch.long)
        rows = has_depth.nonzero()[:, 0]
        first.scatter_reduce_(0, obs.point[rows], rows, "amin")
        known = first < len(obs.point)
        rows = first[known]
        c2w = inverse(self.w2c)[obs.camera[rows]]
        world = (c2w[:, :3, :3] @ self._lift(log_depth)[rows][..., None])[..., 0] + c2w[:, :3, 3]
        found = torch.cat([world, torch.ones_like(world[:, :1])], 1)
        points[known] = found / found.norm(dim=1, keepdim=True)
        return points

    def _parallax_after(self, step: int) -> float:
        """Median motion in pixels, from the first keyframe to ``step`` later, that a rotation does not explain."""
        for later in range(max(step, 1), 0, -1):
            _, uv_a, uv_b = shared_points(self.observations, 0, later)
            if len(uv_a) >= self.config.min_points:
                focal = float(self.log_focal[0].exp())
                a, b = bearing(uv_a, focal), bearing(uv_b, focal)
                return float((b - a @ fit_rotation(a, b).T).norm(dim=1).median()) * focal
        return 0.0

    # Growth

    def _grow(self, start: StartResult, begin: int, end: int) -> BundleResult:
        """Windows chained in both directions, then everything adjusted at once."""
        N = len(self.keyframes)
        log_focal = start.bundle.state.log_focal[0]
        self.w2c = torch.eye(4, dtype=torch.float64).repeat(N, 1, 1)
        self.w2c[begin:end] = start.bundle.state.w2c
        self.log_focal = log_focal.repeat(N)
        if self.known_focal is not None:
            self.log_focal = self.known_focal[self.keyframes].log()
        self.points = torch.zeros(self.num_points, 4, dtype=torch.float64)
        self.has_point = torch.zeros(self.num_points, dtype=torch.bool)
        self.points[self.window_points] = start.bundle.state.points
        self.has_point[self.window_points] = True
        self.solved = torch.zeros(N, dtype=torch.bool)
        self.solved[begin:end] = True
        fresh = self.config.window - self.config.overlap
        forward = [range(b, min(b + fresh, N)) for b in range(end, N, fresh)]
        backward = [range(b, max(b - fresh, -1), -1) for b in range(begin - 1, -1, -fresh)]
        for block in (*forward, *backward):
            for c in block:
                self._add_camera(c, block.step)
            self._adjust_locally(min(block), max(block), block.step)
        return self._adjust_globally()

    def _add_camera(self, c: int, direction: int) -> None:
        """Pose of a new keyframe from the points it sees, then the points it sees for the second time."""
        obs, before = self.observations, c - direction
        _, uv_a, uv_b = shared_points(obs, before, c)
        focal = float(self.log_focal[c].exp())
        turn = fit_rotation(bearing(uv_a, focal), bearing(uv_b, focal))
        guess = rigid(turn @ self.w2c[before, :3, :3], turn @ self.w2c[before, :3, 3])
        mine = obs.camera == c
        rows = (mine & (self.has_point & ~self.moving)[obs.point]).nonzero()[:, 0]
        if len(rows) >= self.config.min_points:
            X = self.points[obs.point[rows]]
            near = X[:, 3] > 1e-3 * X[:, :3].norm(dim=1)
            rows, X = rows[near], X[near]
        if len(rows) >= self.config.min_points:
            rays = torch.cat([obs.uv[rows] / focal, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
            guess = fit_camera_pose(
                X[:, :3] / X[:, 3:], rays, initial_w2c=guess, robust_width=2 * self.pixel_error / focal
            )
        self.w2c[c] = guess
        self.solved[c] = True
        usable = self.solved[obs.camera] & ~self.has_point[obs.point]
        count = torch.bincount(obs.point[usable], minlength=self.num_points)
        new = (count >= 2) & (torch.bincount(obs.point[mine], minlength=self.num_points) > 0)
        chosen = new.nonzero()[:, 0]
        if len(chosen) == 0:
            return
        renumber = torch.cumsum(new, 0) - 1
        rows = usable & new[obs.point]
        sub = obs.select(rows, renumber[obs.point[rows]])
        self.points[chosen] = triangulate(self.w2c, self.log_focal, sub, len(chosen))
        self.has_point[chosen] = True

    def _adjust_locally(self, low: int, high: int, direction: int) -> None:
        overlap = self.config.overlap
        begin, end = (low - overlap, high + 1) if direction > 0 else (low, high + 1 + overlap)
        begin, end = max(begin, 0), min(end, len(self.keyframes))
        sub, chosen = self._restricted(begin, end)
        known = (self.has_point & ~self.moving)[chosen]
        keep = known[sub.point]
        renumber = torch.cumsum(known, 0) - 1
        sub = sub.select(keep, renumber[sub.point[keep]])
        chosen = chosen[known]
        if len(chosen) < self.config.min_points:
            return
        fixed = torch.zeros(end - begin, dtype=torch.bool)
        held = overlap // 2
        fixed[:held] = direction > 0
        fixed[-held:] = direction < 0
        state = BundleState(self.w2c[begin:end], self.log_focal[begin:end], self.points[chosen])
        settings = BundleConfig(
            num_iterations=8, robust_width=2 * self.pixel_error, focal="fixed", tolerance=1e-3
        )
        result = bundle_adjust(state, sub, fixed=fixed, config=settings)
        self.w2c[begin:end] = result.state.w2c
        self.points[chosen] = result.state.points
        # What is new here and far off moves; what was believed before is judged again at the end.
        error = point_error(result.error, sub, len(chosen))
        self.moving[chosen] = error > 3 * MOVER_LIMIT * self.pixel_error

    def _adjust_globally(self) -> BundleResult:
        """All keyframes and points that are not known to move."""
        known = self.has_point
        renumber = torch.cumsum(known, 0) - 1
        keep = known[self.observations.point]
        obs = self.observations.select(keep, renumber[self.observations.point[keep]])
        self.track_of_point = self.track_of_point[known]
        state = BundleState(self.w2c, self.log_focal, self.points[known])
        settings = BundleConfig(
            num_iterations=15,
            robust_width=2 * self.pixel_error,
            focal=self._focal_mode(),
            focal_prior=None if self.known_focal is not None else self.prior,
            prior_strength=self.config.prior_strength * self.pixel_error**2,
            radial_prior=0.0 if self.known_focal is not None else self.config.radial_prior,
            tolerance=1e-4,
        )
        trusted = ~self.moving[known]
        self.final_observations = replace(obs, weight=trusted[obs.point].double())
        return bundle_adjust(state, self.final_observations, config=settings)

    def _focal_mode(self) -> Literal["fixed", "shared", "per_frame"]:
        if self.known_focal is not None:
            return "fixed"
        return "per_frame" if self.config.zoom else "shared"

    def _rotations(self, start: StartResult) -> BundleResult:
        """All keyframes as pure rotations."""
        obs, N = self.observations, len(self.keyframes)
        log_focal = start.rotation_only.state.log_focal[:1].repeat(N)
        if self.known_focal is not None:
            log_focal = self.known_focal[self.keyframes].log()
        w2c = torch.eye(4, dtype=torch.float64).repeat(N, 1, 1)
        for c in range(1, N):
            _, uv_a, uv_b = shared_points(obs, c - 1, c)
            a, b = bearing(uv_a, float(log_focal[c - 1].exp())), bearing(uv_b, float(log_focal[c].exp()))
            w2c[c, :3, :3] = fit_rotation(a, b) @ w2c[c - 1, :3, :3]
        points = mean_directions(w2c, log_focal, obs, self.num_points)
        settings = BundleConfig(
            num_iterations=20,
            robust_width=2 * self.pixel_error,
            focal=self._focal_mode(),
            focal_prior=None if self.known_focal is not None else self.prior,
            prior_strength=self.config.prior_strength * self.pixel_error**2,
            with_translation=False,
        )
        self.final_observations = obs
        return bundle_adjust(BundleState(w2c, log_focal, points), obs, config=settings)

    # Finish

    def _finish(
        self,
        result: BundleResult,
        kind: MotionKind,
        parallax: float,
        starts: tuple[tuple[str, float, float, float], ...],
        judged: DepthJudgement | None = None,
    ) -> _ShotSolution:
        obs = self.final_observations
        state = tidy(result.state)
        if kind == "parallax" and not self.with_depth:
            state = self._with_unit_depth(state, obs)
        explained = torch.zeros(len(state.points), dtype=torch.bool)
        explained[obs.point[obs.weight > 0]] = True
        w2c, focal = self._all_frames(state, kind, explained)
        first = inverse(w2c[:1])
        w2c = w2c @ first
        points = state.points.clone()
        points[:, :3] = points[:, :3] @ inverse(first)[0, :3, :3].T + points[:, 3:] * inverse(first)[0, :3, 3]
        self.world_points = points
        confidence, depth_range, error = self._reliability(w2c, focal, points, state.radial, kind)
        spread = result.log_focal_spread * self.pixel_error
        if judged is not None:
            spread = self.focal_spread
        positions = torch.zeros(0, 3, dtype=torch.float64)
        if kind == "parallax":
            finite = points[:, 3] > 1e-3 * points[:, :3].norm(dim=1)
            good = _mean_per_point(result.error.clamp_max(100), obs) < 3 * self.pixel_error
            good &= finite & explained
            positions = points[good, :3] / points[good, 3:]
        planar = _planar_share(positions, self.pixel_error / float(focal.median()))
        motion = ShotMotion(
            self.start,
            self.stop,
            kind,
            float(focal.median()),
            spread,
            parallax,
            planar,
            len(positions),
            error,
            self._statement(kind, parallax, focal, planar, len(positions)),
            starts,
            judged.depth_spread if judged is not None and kind == "parallax" else math.inf,
            judged.camera_error if judged is not None and kind == "parallax" else 0.0,
            self.focal_assumed,
        )
        return _ShotSolution(motion, w2c, focal, confidence, positions, depth_range)

    def _statement(
        self, kind: MotionKind, parallax: float, focal: Float[Tensor, " F"], planar: float, count: int
    ) -> str:
        text = f"frames {self.start}-{self.stop - 1}: "
        if kind == "static":
            text += "the camera stands still; no parallax, so no depth from motion"
        elif kind == "rotation":
            text += "the camera only turns; rotations are known, parallax is missing"
        else:
            text += f"parallax of {parallax:.1f} px, {count} points"
        if planar > 0.9:
            text += "; nearly all of them on one plane"
        if self.focal_assumed:
            view = math.degrees(2 * math.atan(0.5 * self.width / float(focal.median())))
            text += (
                f"; the tracks hardly tell the focal length: a field of view of {view:.0f} degrees is assumed"
            )
        return text

    def _with_unit_depth(self, state: BundleState, obs: Observations) -> BundleState:
        p = (state.w2c[obs.camera, :3] @ state.points[obs.point][..., None])[..., 0]
        w = state.points[obs.point, 3]
        usable = (obs.weight > 0) & (p[:, 2] > 0) & (w > 1e-6)
        if int(usable.sum()) < self.config.min_points:
            return state
        return rescale(state, float(1 / (p[usable, 2] / w[usable]).median()))

    def _all_frames(
        self, state: BundleState, kind: MotionKind, explained: Bool[Tensor, " P"]
    ) -> tuple[Tensor, Tensor]:
        """Poses of the frames between the keyframes: interpolated, then fitted to the explained points they see."""
        F, keys = self.num_frames, self.keyframes
        w2c = torch.empty(F, 4, 4, dtype=torch.float64)
        frames = torch.arange(F)
        right = torch.searchsorted(keys, frames).clamp(1, len(keys) - 1)
        left = right - 1
        share = (frames - keys[left]).double() / (keys[right] - keys[left]).double()
        w2c = interpolate_rigid(state.w2c[left], state.w2c[right], share.clamp(0, 1))
        focal = torch.lerp(state.log_focal[left], state.log_focal[right], share.clamp(0, 1)).exp()
        if self.known_focal is not None:
            factor = state.log_focal[0].exp() / self.known_focal[keys[0]]
            focal = self.known_focal * factor
        w2c[keys] = state.w2c
        self.point_of_track = torch.full((int(self.track.max()) + 1,), -1, dtype=torch.long)
        self.point_of_track[self.track_of_point] = torch.arange(len(self.track_of_point))
        between = torch.ones(F, dtype=torch.bool)
        between[keys] = False
        point = self.point_of_track[self.track]
        point = torch.where(explained[point.clamp_min(0)], point, -1)
        for f in between.nonzero()[:, 0].tolist():
            rows = ((self.frame == f) & (point >= 0)).nonzero()[:, 0]
            if len(rows) < self.config.min_points:
                continue
            X = state.points[point[rows]]
            rays = torch.cat([self.uv[rows] / focal[f], torch.ones(len(rows), 1, dtype=torch.float64)], 1)
            if kind == "parallax":
                near = X[:, 3] > 1e-3 * X[:, :3].norm(dim=1)
                if int(near.sum()) >= self.config.min_points:
                    w2c[f] = fit_camera_pose(
                        X[near, :3] / X[near, 3:],
                        rays[near],
                        initial_w2c=w2c[f],
                        robust_width=float(self.pixel_error / focal[f]),
                        num_iterations=6,
                    )
            else:
                unit = rays / rays.norm(dim=1, keepdim=True)
                w2c[f, :3, :3] = fit_rotation(X[:, :3] / X[:, :3].norm(dim=1, keepdim=True), unit)
        return w2c, focal

    def _reliability(
        self, w2c: Tensor, focal: Tensor, points: Tensor, radial: float, kind: MotionKind
    ) -> tuple[Tensor, Tensor, float]:
        """Per frame: confidence and depth range; and the median error of all tracks with a point."""
        F = self.num_frames
        point = self.point_of_track[self.track]
        rows = (point >= 0).nonzero()[:, 0]
        everything = Observations(
            self.frame[rows], point[rows], self.uv[rows], torch.ones(len(rows), dtype=torch.float64)
        )
        state = BundleState(w2c, focal.log(), points, radial)
        error = reprojection_error(state, everything)
        good = error < 6 * self.pixel_error
        seen = torch.bincount(self.frame, minlength=F).double()
        explained = torch.bincount(everything.camera[good], minlength=F).double()
        enough = (explained / (3 * self.config.min_points)).clamp_max(1)
        confidence = explained / seen.clamp_min(1) * enough
        depth_range = torch.full((F, 2), torch.nan, dtype=torch.float64)
        if kind == "parallax":
            depth = (w2c[everything.camera, 2] * points[everything.point]).sum(1)
            depth = depth / points[everything.point, 3].clamp_min(1e-3)
            for f in range(F):
                mine = depth[(everything.camera == f) & good & (depth > 0)]
                if len(mine) >= self.config.min_points:
                    depth_range[f] = torch.quantile(mine, mine.new_tensor([0.01, 0.99]))
        return confidence, depth_range, float(error.median()) if len(error) else math.inf

    def _unknown(self, why: str) -> _ShotSolution:
        F = self.num_frames
        focal = self.known_focal if self.known_focal is not None else torch.full((F,), self.prior[0])
        motion = ShotMotion(
            self.start,
            self.stop,
            "unknown",
            float(focal.median()),
            math.inf,
            0.0,
            0.0,
            0,
            math.inf,
            f"frames {self.start}-{self.stop - 1}: {why}; the pose is a placeholder",
        )
        return _ShotSolution(
            motion,
            torch.eye(4, dtype=torch.float64).repeat(F, 1, 1),
            focal.double(),
            torch.zeros(F, dtype=torch.float64),
            torch.zeros(0, 3, dtype=torch.float64),
            torch.full((F, 2), torch.nan, dtype=torch.float64),
        )


def relative_rotations(w2c: Float[Tensor, "N 4 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotations from the first camera to each."""
    return relative(inverse(w2c[:1]).expand_as(w2c), inverse(w2c))[:, :3, :3]


def _mean_per_point(value: Float[Tensor, " O"], observations: Observations) -> Float[Tensor, " P"]:
    count = torch.bincount(observations.point).double()
    total = torch.zeros(len(count), dtype=torch.float64).index_add_(0, observations.point, value.double())
    return total / count.clamp_min(1)


def _planar_share(points: Float[Tensor, "P 3"], tolerance: float) -> float:
    """Largest share of points that one plane explains to a few times the depth error of a pixel."""
    if len(points) < 20:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    triples = torch.randint(0, len(points), (200, 3), generator=generator)
    a, b, c = points[triples].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    length = normal.norm(dim=1, keepdim=True)
    usable = length[:, 0] > 1e-9
    normal = normal / length.clamp_min(1e-9)
    distance = (points @ normal.T - (a * normal).sum(1)).abs() / points.norm(dim=1, keepdim=True).clamp_min(
        1e-6
    )
    inside: Bool[Tensor, "P M"] = distance < max(10 * tolerance, 0.01)
    return float(torch.where(usable, inside.double().mean(0), 0.0).max())
