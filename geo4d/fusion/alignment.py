"""The nouns of the alignment: its settings, evidence about the cameras from elsewhere, and its result."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.types import Cameras, ScaleKind

NO_POINTS = "no valid points, or none in common with the windows that its frames belong to"
DISAGREES = "disagrees with the windows that overlap it"

MIN_VALID_SAMPLES = 24
"""A window with fewer valid sampled points is empty."""

CALIBRATION_FRAMES = 50
"""Video length at which per-frame means weigh as much as the published sums."""


@dataclass(frozen=True)
class AlignConfig:
    """Settings of the alignment.

    Attributes:
        num_samples: pixels per frame that the solver sees.
        focal: one focal length for the video, or one per frame that changes smoothly (zoom).
        principal_point: (x, y) in pixels of the maps, centres at +0.5; None is the middle of the image.
        pixel_aspect: fy / fx of all cameras in pixels of the maps, where it is known: what a resize did to square pixels.
            None takes the ratio that the predictions state, else 1. Known intrinsics bring their own.
        fov_limits_deg: range of the field of view across the longer side, degrees.
        use_points, use_disparity, use_trajectory: leave a modality out (ablation).
        disparity_weight, trajectory_weight, smoothness_weight: of the terms; the weight of points is 1.
        focal_smoothness: weight of the squared second difference of the log focal length (``per_frame`` only).
        evidence_weight: weight of camera evidence relative to a ray-map trajectory.
        disparity_in_window_unit: measure the disparity residual in each window's own unit.
        average_per_frame: trajectory and smoothness as means over frames instead of sums.
        weight_limit: largest weight of a point, 1 / (unit of the normalised window).
        min_disparity: disparities up to this (normalised) do not count.
        mask_sky: leave pixels that the predictor calls sky out of the disparity term.
        min_disparity_share: windows with a smaller share of disparity within a factor of 1.25 are dropped.
        max_disparity_error: windows whose disparity error exceeds this many times the median of windows are dropped;
            None turns the rule off.
        max_trajectory_deg: trajectories with a larger rotation error between neighbours are dropped, degrees.
        max_disagreement: pairs of windows whose distance exceeds this many times what windows reach with their best
            partner disagree (see ``init.disagreeing_windows``); None turns the rule off.
        force_bad_windows: the windows to take for bad, by position, instead of judging them; for predictions of different
            kinds, whose distances do not compare, that were judged kind by kind before.
        bad_disagreement: median distance, in depth ranges of a window, above which a window is bad in any company.
        bad_weight: weight of the points of a bad window, so that frames that only it sees still get a camera.
        steps_points, steps_all: Gauss-Newton steps of the two stages.
        force_dropped_disparity, force_kept_trajectory: window lists to take instead of the rules' (comparisons).
        steady: average the dense depth over neighbouring frames (``steady.py``), and take the confidence from all
            signs of error (``confidence.py``).
        seed: of the sample grid.
    """

    num_samples: int = 500
    focal: Literal["shared", "per_frame"] = "shared"
    principal_point: tuple[float, float] | None = None
    pixel_aspect: float | None = None
    fov_limits_deg: tuple[float, float] = (15.0, 130.0)
    use_points: bool = True
    use_disparity: bool = True
    use_trajectory: bool = True
    disparity_weight: float = 2.0
    trajectory_weight: float = 0.005
    smoothness_weight: float = 0.015
    focal_smoothness: float = 1.0
    evidence_weight: float = 32.0
    disparity_in_window_unit: bool = True
    average_per_frame: bool = True
    weight_limit: float = 10.0
    min_disparity: float = 0.05
    mask_sky: bool = True
    min_disparity_share: float = 0.3
    max_disparity_error: float | None = 3.0
    max_trajectory_deg: float = 4.0
    max_disagreement: float | None = 2.5
    bad_disagreement: float = 0.15
    bad_weight: float = 0.02
    steps_points: int = 8
    steps_all: int = 10
    force_dropped_disparity: tuple[int, ...] | None = None
    force_kept_trajectory: tuple[int, ...] | None = None
    force_bad_windows: tuple[int, ...] | None = None
    steady: bool = True
    seed: int = 0

    @staticmethod
    def published() -> "AlignConfig":
        """The published objective and its rules for windows."""
        return AlignConfig(
            num_samples=800,
            disparity_in_window_unit=False,
            average_per_frame=False,
            mask_sky=False,
            max_disparity_error=None,
            max_disagreement=None,
            bad_disagreement=float("inf"),
            bad_weight=1.0,
            steps_points=12,
            steps_all=15,
            steady=False,
        )

    @staticmethod
    def corrected() -> "AlignConfig":
        """The default: see ``docs/decisions`` for each deviation from the published objective."""
        return AlignConfig(
            weight_limit=30.0, disparity_weight=3.0, trajectory_weight=0.02, smoothness_weight=0.008
        )

    def window_weight(self, bad: Bool[Tensor, " G"]) -> Float[Tensor, " G"]:
        """Weight of each window's points."""
        return torch.where(bad, self.bad_weight, 1.0).double()

    def per_frame_factor(self, num_frames: int) -> float:
        """What the weights of trajectory and smoothness are multiplied by."""
        return CALIBRATION_FRAMES / num_frames if self.average_per_frame else 1.0

    def focal_limits(self, size: tuple[int, int]) -> tuple[float, float]:
        """Shortest and longest focal length, pixels of maps of (height, width) ``size``."""
        narrow, wide = np.radians(self.fov_limits_deg)
        half = 0.5 * float(max(size))
        return float(half / np.tan(0.5 * wide)), float(half / np.tan(0.5 * narrow))


@dataclass(frozen=True)
class CameraEvidence:
    """Cameras of all frames from another source, such as tracks; a trajectory with a frame of reference of its own.

    Attributes:
        c2w: camera to the evidence's own world; its unit is free.
        intrinsics: pixels of the maps.
        confidence: in [0, 1].
        windows: numbers of predictions whose points are in the unit of these cameras.
        focal_known: True where the focal length is determined, too; it is then held.
        zooms: True where the focal length changes from frame to frame as these cameras say; where it is not known, one
            common factor of it is.
    """

    c2w: Float[Tensor, "T 4 4"]
    intrinsics: Float[Tensor, "T 3 3"]
    confidence: Float[Tensor, " T"]
    windows: tuple[int, ...] = ()
    focal_known: Bool[Tensor, " T"] | None = None
    zooms: Bool[Tensor, " T"] | None = None

    def at(self, frames: Int[Tensor, " n"]) -> "CameraEvidence":
        """The cameras of some frames."""
        return replace(
            self,
            c2w=self.c2w[frames],
            intrinsics=self.intrinsics[frames],
            confidence=self.confidence[frames],
            focal_known=None if self.focal_known is None else self.focal_known[frames],
            zooms=None if self.zooms is None else self.zooms[frames],
        )


@dataclass(frozen=True)
class Alignment:
    """Everything that the dense maps need, and how it came about.

    Attributes:
        intrinsics: pixels of the maps.
        c2w: camera to world, or None when nothing gave poses.
        window_similarity: point of a window's point map -> world (camera-frame points: its scale on the diagonal).
        window_weight: weight of a window's points; below 1 for bad windows.
        disparity_scale, disparity_shift: window disparity D -> scale * D + shift = 1 / depth.
        disparity_weight: weight of a window's disparity residual in 1 / world unit; 0 where dropped.
        point_unit: depth range that the uncertainty of a window refers to.
        trajectory_window: window of each trajectory, -1 for evidence.
        trajectory_similarity: trajectory -> world.
        window_frames: frames of each window.
        reliable: False for frames that only bad windows, or none, saw.
        scene: number of the world that a frame belongs to.
        point_frame: ``window``, or ``camera`` when the predictions carry no poses.
        scale_kind: of depth and translations.
        size: (height, width) of the maps.
        config: the settings.
        diagnostics: JSON values.
    """

    intrinsics: Float[Tensor, "T 3 3"]
    c2w: Float[Tensor, "T 4 4"] | None
    window_similarity: Float[Tensor, "G 4 4"]
    window_weight: Float[Tensor, " G"]
    disparity_scale: Float[Tensor, " G"]
    disparity_shift: Float[Tensor, " G"]
    disparity_weight: Float[Tensor, " G"]
    point_unit: Float[Tensor, " G"]
    trajectory_window: Int[Tensor, " K"]
    trajectory_similarity: Float[Tensor, "K 4 4"]
    window_frames: tuple[Tensor, ...]
    reliable: Bool[Tensor, " T"]
    scene: Int[Tensor, " T"]
    point_frame: Literal["window", "camera"]
    scale_kind: ScaleKind
    size: tuple[int, int]
    config: AlignConfig
    diagnostics: dict[str, Any] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.intrinsics.shape[0]

    @property
    def cameras(self) -> Cameras:
        """The cameras in the world.

        Raises:
            ValueError: there are no poses.
        """
        if self.c2w is None:
            raise ValueError("expected an alignment with poses, got one without; give CameraEvidence")
        return Cameras(self.intrinsics, self.c2w, self.size)


def find_bad_windows(alignment: Alignment) -> list[int]:
    """Windows whose points disagree with everything around them: worth another sample with another seed."""
    return torch.nonzero(alignment.window_weight < 0.5)[:, 0].tolist()
