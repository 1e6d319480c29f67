"""What the tracks determine: whether the camera moved, how well depths and the focal length are known.

A camera that only turns is explained by few unknowns: its rotations, its focal length, the distortion of its lens, and
the time in which its rows are read one after the other. A translation brings a depth for every point, which can also
explain what the plain turning camera lacks. So the moving camera has to beat the turning one with all of its few
unknowns, by more than the noise that was measured, and the depths must come out better than a guess.

The noise is that of the residuals. Errors of one track last for many frames, and those of neighbouring tracks are
alike: both are measured, and what they make a mean less certain than independent errors would is counted.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleResult, bundle_adjust
from geo4d.cameras.observations import Observations
from geo4d.cameras.rotations import mean_directions, rotation_chain
from geo4d.cameras.terms import BundleState, project_points
from geo4d.cameras.thresholds import LEAST_NOISE, MOST_RADIAL, NEEDED, READOUT_ERROR
from geo4d.cameras.variance import inverse_depth_variance
from geo4d.geometry.poses import rigid, so3_exp
from geo4d.optimise.kernels import cauchy_weight


@dataclass(frozen=True)
class DepthJudgement:
    """How much of the tracks only a moving camera explains, and how well its depths are known.

    Attributes:
        gain: how many times more than noise each further unknown of the moving camera explains; about 1 by chance.
        parallax: median error of the best turning camera, pixels.
        noise: standard deviation of a coordinate, pixels.
        inflation: how many times more than with independent errors the variance of a mean is.
        depth_spread: median standard deviation of log depth, up to one factor; infinite where nothing is known.
        camera_error: what the errors of the cameras and of the focal length make of a depth, as a shift of the match,
            pixels, median; 0 is none.
        moving_focal, turning_focal: log focal of the moving and of the turning camera, and its standard deviation by
            the tracks alone, with unknown distortion.
        readout: time between the first and the last row, in frames, of the turning camera.
        turned: the best turning camera.
        moving_zoom, turning_zoom: how many times more than noise each focal length beyond the first explains, of the
            moving and of the turning camera; 0 where there is one.
    """

    gain: float
    parallax: float
    noise: float
    inflation: float
    depth_spread: float
    camera_error: float
    moving_focal: tuple[float, float]
    turning_focal: tuple[float, float]
    readout: float
    turned: BundleResult
    moving_zoom: float = 0.0
    turning_zoom: float = 0.0


def judge_depth(
    state: BundleState,
    observations: Observations,
    spin: Float[Tensor, "N 2 3"],
    height: float,
    settings: BundleConfig,
    *,
    pixel_error: float,
) -> DepthJudgement:
    """Compare the moving camera with the best turning one, and propagate the noise that is left into depths.

    Args:
        state: cameras and points of some tens of cameras.
        observations: of points that are still; every point seen at least twice.
        spin: rotation per frame of the video around the moment of each camera, and how it changes: a viewing direction b
            is seen at exp(t spin[0] + t^2 / 2 spin[1]) b a time of t frames later; radians.
        height: of the picture, pixels: the rows that are read one after the other.
        settings: focal mode and prior; ``prior_strength`` in squares of the noise.
        pixel_error: expected of a track, pixels.
    """
    num_cameras, num_points = len(state.w2c), len(state.points)
    width = 2 * pixel_error
    free_lens = settings.focal != "fixed"
    config = replace(
        settings,
        num_iterations=6,
        robust_width=width,
        prior_strength=settings.prior_strength * pixel_error**2,
        radial_prior=MOST_RADIAL if free_lens else settings.radial_prior,
        tolerance=1e-4,
        reliability=False,
        with_translation=True,
    )
    moving = with_readout(
        bundle_adjust(state, observations, config=config), observations, spin, height, config
    )
    turned = turning_camera(state, observations, spin, height, config)
    seen = len(observations.point)
    spare = max(2 * seen - 3 * num_points - 6 * num_cameras, 0.1 * seen, 1)
    noise = max(math.sqrt(moving.result.cost / spare), LEAST_NOISE)
    inflation = correlation_inflation(moving.misfit(), observations, width)
    moved = (turned.observations.uv - observations.uv).square().mean() if turned.readout else 0.0
    # The rest of it is the same in all pictures of a point, so no mean makes it less.
    systematic = READOUT_ERROR**2 * float(moved) * seen / max(num_points, 1)
    strength = noise**2 * inflation + systematic
    gain = _gain(turned, moving, num_points, num_cameras) / strength
    middle = num_cameras // 2
    found = moving.result.state

    def log_focal(of: _Timed, with_translation: bool) -> tuple[float, float]:
        value = float(of.result.state.log_focal.mean())
        if not free_lens:
            return value, 0.0
        alone = replace(config, focal_prior=None, prior_strength=strength, with_translation=with_translation)
        spread = inverse_depth_variance(of.result.state, of.observations, middle, alone).log_focal
        return value, math.sqrt(spread * strength)

    held = replace(config, prior_strength=strength)
    variance = inverse_depth_variance(found, moving.observations, middle, held)
    total = ((variance.point + variance.camera) * strength).sqrt()
    spread = total / variance.inverse_depth.clamp_min(1e-9)
    shift = (variance.camera * strength).sqrt() * variance.pixels
    finite = torch.isfinite(shift)
    return DepthJudgement(
        gain,
        float(turned.result.error.median()),
        noise,
        inflation,
        float(spread.median()) if num_points else math.inf,
        float(shift[finite].median()) if bool(finite.any()) else math.inf,
        log_focal(moving, True),
        log_focal(turned, False),
        turned.readout,
        turned.result,
        _gain_of_zoom(moving, config) / strength,
        _gain_of_zoom(turned, replace(config, with_translation=False)) / strength,
    )


def _gain(turned: _Timed, moving: _Timed, num_points: int, num_cameras: int) -> float:
    """Squared pixels that each further unknown of the moving camera explains: the mean, or that of the point that
    ``NEEDED`` of the points exceed, if that is less: a few points that move on their own do not make a moving camera.
    """
    point = turned.observations.point
    less = turned.misfit().square().sum(1) - moving.misfit().square().sum(1)
    per_point = torch.zeros(num_points, dtype=torch.float64).index_add_(0, point, less.clamp(-25.0, 25.0))
    per_point = per_point / (1 + 3 * num_cameras / max(num_points, 1))
    return float(torch.minimum(per_point.mean(), torch.quantile(per_point, 1 - NEEDED)))


def _gain_of_zoom(zoomed: _Timed, config: BundleConfig) -> float:
    """Squared pixels that each focal length beyond the first explains, against the best solution near it with one.

    The mean over the cameras, or the median camera if that is less: a few cameras that are wrong otherwise make no zoom.
    """
    if config.focal != "per_frame":
        return 0.0
    state, observations, width = zoomed.result.state, zoomed.observations, config.robust_width
    mean = torch.full_like(state.log_focal, float(state.log_focal.mean()))
    settings = replace(config, focal="shared", num_iterations=15)
    one = bundle_adjust(replace(state, log_focal=mean), observations, config=settings)

    def squared(of: BundleState) -> Tensor:
        left = project_points(of, observations)[0] - observations.uv
        return left.square().sum(1).clamp_max(width**2)

    num_cameras = len(mean)
    less = squared(one.state) - squared(state)
    per_camera = torch.zeros(num_cameras, dtype=torch.float64).index_add_(0, observations.camera, less)
    return float(
        torch.minimum(per_camera.mean() * num_cameras / max(num_cameras - 1, 1), per_camera.median())
    )


def turning_camera(
    state: BundleState,
    observations: Observations,
    spin: Float[Tensor, "N 2 3"],
    height: float,
    config: BundleConfig,
) -> _Timed:
    """The best camera that does not move, with lens distortion and rows that are read one after the other.

    Args:
        state: only its focal lengths are used.
        spin, height: see ``judge_depth``.
        config: of the adjustment.
    """
    num_cameras, num_points = len(state.w2c), len(state.points)
    settings = replace(config, with_translation=False, num_iterations=10)
    focal = float(state.log_focal.mean().exp())
    zero = torch.zeros(num_cameras, 3, dtype=torch.float64)
    w2c = rigid(rotation_chain(observations, num_cameras, focal), zero)
    points = mean_directions(w2c, state.log_focal, observations, num_points)
    begin = BundleState(w2c, state.log_focal, points)
    best = bundle_adjust(begin, observations, config=settings)
    return with_readout(best, observations, spin, height, replace(settings, num_iterations=5))


def with_readout(
    best: BundleResult,
    observations: Observations,
    spin: Float[Tensor, "N 2 3"],
    height: float,
    settings: BundleConfig,
) -> _Timed:
    """A solution adjusted further with a readout time, where that explains more.

    Gauss-Newton steps in the readout time, everything else adjusted again for each value.

    Args:
        best: converged without.
        spin, height: see ``judge_depth``.
        settings: of the adjustment.
    """
    plain = _Timed(best, 0.0, observations)
    if float(spin[:, 0].norm(dim=1).max() * best.state.log_focal.exp().max()) < 1.0:
        return plain  # less than half a pixel between the middle and the outermost row
    probe = 0.3
    tried = [plain, _at_once(best, observations, spin, height, probe, settings)]
    slope = (tried[1].misfit() - plain.misfit()) / probe
    value, last = probe, tried[1]
    for _ in range(3):
        left = last.misfit()
        weight = cauchy_weight(left.square().sum(1), settings.robust_width)
        step = float((weight[:, None] * slope * left).sum())
        value -= step / max(float((weight[:, None] * slope.square()).sum()), 1e-12)
        value = max(-1.0, min(1.0, value))
        last = _at_once(last.result, observations, spin, height, value, settings)
        tried.append(last)
    return min(tried, key=lambda found: found.result.cost)


@dataclass(frozen=True)
class _Timed:
    """A solution, its readout time in frames, and what would have been seen had all rows been read at once."""

    result: BundleResult
    readout: float
    observations: Observations

    def misfit(self) -> Float[Tensor, "O 2"]:
        return project_points(self.result.state, self.observations)[0] - self.observations.uv


def _at_once(
    start: BundleResult,
    observations: Observations,
    spin: Float[Tensor, "N 2 3"],
    height: float,
    readout: float,
    settings: BundleConfig,
) -> _Timed:
    """A solution adjusted to what would have been seen had all rows been read at once."""
    focal = start.state.log_focal.exp()[observations.camera]
    late = (readout * observations.uv[:, 1] / height)[:, None]
    rate, change = spin[observations.camera].unbind(1)
    turn = so3_exp(-late * rate - 0.5 * late.square() * change)
    rays = torch.cat([observations.uv / focal[:, None], torch.ones_like(observations.uv[:, :1])], 1)
    rays = (turn @ rays[..., None])[..., 0]
    moved = replace(observations, uv=rays[:, :2] / rays[:, 2:].clamp_min(1e-3) * focal[:, None])
    return _Timed(bundle_adjust(start.state, moved, config=settings), readout, moved)


def correlation_inflation(misfit: Float[Tensor, "O 2"], observations: Observations, width: float) -> float:
    """How many times larger the variance of a mean of residuals is than if they were independent, at least 1.

    Along the tracks by the correlation of consecutive residuals (as of an autoregressive process of first order, its
    bias from the three unknowns of each point taken out); between tracks by the mean of all residuals within cells of
    each picture.

    Args:
        misfit: predicted minus seen, pixels.
        width: residuals are cut to this length, pixels: outliers say nothing about the others.
    """
    left = misfit * (width / misfit.norm(dim=1, keepdim=True).clamp_min(width))
    order = (observations.point * (int(observations.camera.max()) + 1) + observations.camera).argsort()
    point, ordered = observations.point[order], left[order]
    pair = point[1:] == point[:-1]
    variance = float(ordered.square().sum() / max(2 * len(ordered), 1))
    if variance <= 0 or not bool(pair.any()):
        return 1.0
    length = float(torch.bincount(point).double().clamp_min(1)[point].mean())
    along = float((ordered[1:] * ordered[:-1]).sum(1)[pair].mean() / 2 / variance)
    along = max(0.0, min(along + 1.5 / length, 0.95))
    temporal = min((1 + along) / (1 - along), length)
    low, high = observations.uv.amin(0), observations.uv.amax(0)
    column, row = (4 * (observations.uv - low) / (high - low).clamp_min(1e-9)).long().clamp_max(3).unbind(1)
    cell = (observations.camera * 4 + row) * 4 + column
    count = torch.bincount(cell).double()
    total = torch.zeros(len(count), 2, dtype=torch.float64).index_add_(0, cell, left)
    full = count >= 3
    spatial = 1.0
    if bool(full.any()):
        spatial = float((total[full].square().sum(1) / (2 * count[full])).mean() / variance)
    return temporal * max(1.0, spatial)
