"""One shot as the solver takes it: what was seen in each frame, and what is known of its cameras.

Axis names: F frames of the shot, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig
from geo4d.cameras.types import CameraSolveConfig, MotionKind
from geo4d.tracks.types import Tracks


@dataclass(frozen=True)
class ShotProblem:
    """Tracks of one shot, and what is known of its cameras.

    Attributes:
        start, stop: frames [start, stop) of the video.
        size: (height, width) of the pictures, pixels.
        track, frame: of every observation; frames count from ``start``.
        uv: pixels relative to the principal point. Where intrinsics are known, every frame's own matrix (skew, fy) is
            taken out: the solver sees square pixels of focal fx.
        known_focal: pixels, or None to estimate one.
        prior: (focal length in pixels, spread of its logarithm).
        pixel_error: expected error of a track, pixels.
        config: settings.
        scratch: folder for what is too large to be held in memory; None takes the system's temporary one.
    """

    start: int
    stop: int
    size: tuple[int, int]
    track: Int[Tensor, " O"]
    frame: Int[Tensor, " O"]
    uv: Float[Tensor, "O 2"]
    known_focal: Float[Tensor, " F"] | None
    prior: tuple[float, float]
    pixel_error: float
    config: CameraSolveConfig
    scratch: Path | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the shot."""
        return self.stop - self.start

    @property
    def focal_mode(self) -> Literal["fixed", "shared", "per_frame"]:
        """What an adjustment may do with the focal length: ``fixed`` where it is known, else ``per_frame`` with
        ``config.zoom`` and ``shared`` by all frames without, or while it is open."""
        if self.known_focal is not None:
            return "fixed"
        return "per_frame" if self.config.zoom else "shared"

    @property
    def zoom_is_open(self) -> bool:
        """Whether it is for the tracks to tell if the lens zooms."""
        return self.known_focal is None and self.config.zoom is None

    @property
    def focal_prior(self) -> tuple[float, float] | None:
        """The prior of an adjustment; None where the focal length is known."""
        return None if self.known_focal is not None else self.prior

    @property
    def radial_prior(self) -> float:
        """Spread of the distortion that an adjustment may find; 0 where the intrinsics are known."""
        return 0.0 if self.known_focal is not None else self.config.radial_prior


def shot_problem(
    tracks: Tracks,
    start: int,
    stop: int,
    intrinsics: Float[Tensor, "T 3 3"] | None,
    focal_prior: tuple[float, float] | None,
    config: CameraSolveConfig,
    scratch: Path | None = None,
) -> ShotProblem:
    """The frames [start, stop) of a video.

    Args:
        intrinsics: known, of all frames of the video; None to estimate a focal length.
        focal_prior: (focal in pixels, spread of its logarithm); None takes the config's.
        scratch: see ``ShotProblem``.
    """
    height, width = tracks.size
    inside = (tracks.frame >= start) & (tracks.frame < stop)
    frame = tracks.frame[inside] - start
    xy = tracks.xy[inside].double()
    known_focal: Tensor | None = None
    if intrinsics is None:
        uv = xy - torch.tensor([width / 2, height / 2], dtype=torch.float64)
    else:
        K = intrinsics[start:stop]
        known_focal = K[:, 0, 0]
        rays = torch.cat([xy, torch.ones_like(xy[:, :1])], 1)
        rays = (torch.linalg.inv(K)[frame] @ rays[..., None])[..., 0]
        uv = rays[:, :2] * known_focal[frame][:, None]
    share, spread = config.focal_prior
    return ShotProblem(
        start,
        stop,
        tracks.size,
        tracks.track[inside],
        frame,
        uv,
        known_focal,
        focal_prior or (share * width, spread),
        max(0.25, config.pixel_error * math.hypot(height, width) / 800),
        config,
        scratch,
    )


def by_frame(problem: ShotProblem) -> list[tuple[Int[Tensor, " n"], Float[Tensor, "n 2"]]]:
    """Per frame: sorted track numbers and their uv."""
    track, frame = problem.track, problem.frame
    order = (frame * (int(track.max()) + 1 if len(track) else 1) + track).argsort()
    counts = torch.bincount(frame, minlength=problem.num_frames).tolist()
    return list(zip(track[order].split(counts), problem.uv[order].split(counts), strict=True))


def refine_settings(problem: ShotProblem, kind: MotionKind) -> BundleConfig:
    """For ``refine``: the strength of the prior is in squares of the measured error."""
    return BundleConfig(
        with_translation=kind == "parallax",
        focal=problem.focal_mode,
        focal_prior=problem.focal_prior,
        prior_strength=problem.config.prior_strength,
        radial_prior=problem.radial_prior,
        scratch=problem.scratch,
    )
