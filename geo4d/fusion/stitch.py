"""Windows of camera-frame points to one scale, without optimisation: for predictors that give no poses.

Each window has one unknown factor. Factors follow from the depths that overlapping windows give the same pixels:
robust log ratios of all pairs, then linear least squares over the windows.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion.alignment import (
    DISAGREES,
    MIN_VALID_SAMPLES,
    NO_POINTS,
    AlignConfig,
    Alignment,
    CameraEvidence,
)
from geo4d.fusion.moving import rigid_flow
from geo4d.fusion.register import overlapping_pairs
from geo4d.fusion.samples import Samples, take_samples
from geo4d.fusion.start_focal import fit_focals
from geo4d.geometry.cameras import intrinsics_matrix, pixel_grid
from geo4d.types import Prediction

log = logging.getLogger(__name__)

MAX_EVIDENCE_PAIRS = 24
"""Pairs of frames that fix the scale between camera evidence and points."""


def window_scales(
    samples: Samples, *, min_points: int = 24
) -> tuple[Float[Tensor, " G"], list[int], Float[Tensor, " G"]]:
    """Factor of every window that makes overlapping windows agree in depth.

    Returns:
        factors (geometric mean 1), windows that overlap no other, and each window's median log disagreement with its
        neighbours afterwards (NaN where there are none).
    """
    num_windows = samples.num_windows
    pair, row_a, row_b, pairs = overlapping_pairs(samples)
    order = torch.argsort(pair, stable=True)
    counts = torch.bincount(pair, minlength=len(pairs)).tolist() if len(pairs) else []
    ratios, spreads, kept = [], [], []
    start = 0
    for number, count in enumerate(counts):
        rows = order[start : start + count]
        start += count
        samples.touched(2 * count)
        z_a, z_b = samples.points[row_a[rows], 2], samples.points[row_b[rows], 2]
        usable = (samples.weight[row_a[rows]] > 0) & (samples.weight[row_b[rows]] > 0) & (z_a > 0) & (z_b > 0)
        if int(usable.sum()) < min_points:
            continue
        values = (z_a[usable] / z_b[usable]).log().double()
        middle = values.median()
        ratios.append(float(middle))
        spreads.append(float((values - middle).abs().median()))
        kept.append(pairs[number].tolist())
    import scipy.sparse.linalg  # here: it is a tenth of what the command loads, and models with poses do without

    # The samples are divided by the window's own unit; a factor acts on the window's points themselves.
    unit = samples.point_unit.log().numpy()
    laplacian = scipy.sparse.lil_matrix((num_windows, num_windows))
    right = np.zeros(num_windows)
    for (a, b), ratio, spread in zip(kept, ratios, spreads, strict=True):
        weight = 1 / (spread + 0.01) ** 2
        # log factor_b - log factor_a = log(z_a / z_b), in the windows' own units.
        value = ratio + unit[a] - unit[b]
        laplacian[a, a] += weight
        laplacian[b, b] += weight
        laplacian[a, b] -= weight
        laplacian[b, a] -= weight
        right[b] += weight * value
        right[a] -= weight * value
    alone = sorted(set(range(num_windows)) - {w for p in kept for w in p})
    # A feather of a pull to factor 1 fixes the free scale of every group of windows.
    system = (laplacian + 1e-6 * scipy.sparse.identity(num_windows)).tocsc()
    log_factor = np.atleast_1d(scipy.sparse.linalg.spsolve(system, right))
    disagreement: list[list[float]] = [[] for _ in range(num_windows)]
    for (a, b), ratio in zip(kept, ratios, strict=True):
        left = abs(ratio + unit[a] - unit[b] - (log_factor[b] - log_factor[a]))
        disagreement[a].append(left)
        disagreement[b].append(left)
    for number, (a, b) in enumerate(kept):
        disagreement[a].append(spreads[number])
        disagreement[b].append(spreads[number])
    median = torch.tensor(
        [float(np.median(d)) if d else float("nan") for d in disagreement], dtype=torch.float64
    )
    return torch.from_numpy(np.exp(log_factor)), alone, median


def stitch(
    predictions: Sequence[Prediction],
    *,
    num_frames: int,
    config: AlignConfig,
    size: tuple[int, int] | None = None,
    known_intrinsics: Float[Tensor, "T 3 3"] | None = None,
    known_c2w: Float[Tensor, "T 4 4"] | None = None,
    motion: CameraEvidence | None = None,
    scratch: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Alignment:
    """One scale for the video; poses only where they are given.

    Args:
        known_c2w, motion: cameras; the points are scaled to the unit of their translations when these show parallax,
            and keep their own unit otherwise.
        scratch: folder for work files of long videos; None takes the system's temporary one.
    Raises:
        ValueError: a prediction is not in camera axes, maps of several sizes, or frames out of range.
    """
    evidence_maps = _EvidenceMaps(known_c2w is not None or motion is not None, len(predictions))
    checked = _Checked(predictions, evidence_maps)
    samples = take_samples(
        checked,
        num_frames=num_frames,
        size=size,
        num_samples=config.num_samples,
        weight_limit=config.weight_limit,
        min_disparity=config.min_disparity,
        use_trajectory=False,
        seed=config.seed,
        scratch=scratch,
        progress=progress,
    )
    if checked.foreign:
        index, frame = next(iter(checked.foreign.items()))
        raise ValueError(f"expected camera-frame points in all windows, got {frame!r} in window {index}")
    num_windows = samples.num_windows
    metric = bool(samples.metric.all())
    factor, alone, disagreement = window_scales(samples)
    if metric:
        factor = torch.ones_like(factor)
    elif len(alone) > 0 and num_windows > 1:
        log.warning("%d windows overlap no other: they keep the predictor's own scale", len(alone))
    intrinsics = _intrinsics(samples, config, known_intrinsics, motion)
    c2w = known_c2w.double() if known_c2w is not None else None if motion is None else motion.c2w.double()
    evidence_scale = None
    if c2w is not None:
        evidence_scale = _evidence_scale(evidence_maps.pairs, factor, intrinsics, c2w)
        if evidence_scale is None:
            log.warning("the given cameras show no parallax to scale the points by: both keep their own unit")
        elif metric and known_c2w is None:
            # The points are in metres, so the cameras follow.
            c2w = c2w.clone()
            c2w[:, :3, 3] /= evidence_scale
        else:
            factor = factor * evidence_scale
    why_bad = _bad_windows(samples, disagreement, config)
    window_weight = config.window_weight(torch.tensor([window in why_bad for window in range(num_windows)]))
    good = window_weight[samples.window] >= 0.5
    reliable = torch.zeros(num_frames, dtype=torch.bool)
    reliable[samples.frame[good]] = True
    window_similarity = torch.eye(4, dtype=torch.float64).repeat(num_windows, 1, 1)
    window_similarity[:, :3, :3] *= factor[:, None, None]
    diagnostics: dict[str, Any] = {
        "window_scale": [round(float(f), 6) for f in factor],
        "disagreement": [round(float(d), 6) if np.isfinite(d) else None for d in disagreement],
        "windows_without_overlap": alone,
        "evidence_scale": evidence_scale,
        "dropped": [{"window": window, "what": "points", "why": why} for window, why in why_bad.items()],
        "num_unreliable_frames": int((~reliable).sum()),
    }
    zeros = torch.zeros(num_windows, dtype=torch.float64)
    return Alignment(
        intrinsics=intrinsics,
        c2w=c2w,
        window_similarity=window_similarity,
        window_weight=window_weight,
        disparity_scale=torch.ones_like(zeros),
        disparity_shift=zeros,
        disparity_weight=zeros,
        point_unit=samples.point_unit,
        trajectory_window=torch.zeros(0, dtype=torch.long),
        trajectory_similarity=torch.zeros(0, 4, 4, dtype=torch.float64),
        window_frames=samples.window_frames,
        reliable=reliable,
        scene=torch.zeros(num_frames, dtype=torch.long),
        point_frame="camera",
        scale_kind="metric" if metric else "scale",
        size=samples.size,
        config=config,
        diagnostics=diagnostics,
    )


def _bad_windows(samples: Samples, disagreement: Tensor, config: AlignConfig) -> dict[int, str]:
    """Windows whose points hardly count, and why."""
    typical = float(disagreement.nanmedian().nan_to_num(nan=0.0))
    limit = (config.max_disagreement or 1e9) * max(typical, 0.01)
    valid = torch.zeros(samples.num_windows).index_add_(
        0, samples.window, (samples.weight > 0).sum(1).float()
    )
    why = {}
    for window in range(samples.num_windows):
        if valid[window] < MIN_VALID_SAMPLES:
            why[window] = NO_POINTS
        elif disagreement[window] > limit:
            why[window] = DISAGREES
    return why


class _EvidenceMaps:
    """Depth of a few frame pairs, kept while the windows pass by."""

    def __init__(self, wanted: bool, num_windows: int) -> None:
        self.step = max(1, num_windows // MAX_EVIDENCE_PAIRS) if wanted else 0
        self.pairs: list[tuple[int, int, int, Tensor, Tensor]] = []

    def see(self, index: int, prediction: Prediction) -> None:
        if self.step == 0 or index % self.step or prediction.num_frames < 2 or prediction.point_map is None:
            return
        first, last = 0, prediction.num_frames - 1
        maps = []
        for local in (first, last):
            z = prediction.point_map[local, ..., 2].float()
            usable = torch.isfinite(z) & (z > 0)
            if prediction.valid is not None:
                usable &= prediction.valid[local]
            maps.append(torch.where(usable, z, torch.nan))
        frames = prediction.frame_indices
        self.pairs.append((index, int(frames[first]), int(frames[last]), maps[0], maps[1]))


class _Checked(Sequence[Prediction]):
    """The predictions; notes those that are not in camera axes and shows each to the evidence maps as it passes."""

    def __init__(self, predictions: Sequence[Prediction], evidence: _EvidenceMaps) -> None:
        self.predictions, self.evidence = predictions, evidence
        self.foreign: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, index: Any) -> Any:
        prediction = self.predictions[index]
        if prediction.point_map is not None and prediction.point_frame != "camera":
            self.foreign[index] = prediction.point_frame
        self.evidence.see(index, prediction)
        return prediction


def _intrinsics(
    samples: Samples, config: AlignConfig, known: Tensor | None, motion: CameraEvidence | None
) -> Tensor:
    """Known, or from the evidence, or as the predictor states, or fitted to the points (median over windows)."""
    height, width = samples.size
    if known is not None:
        return known.double()
    if motion is not None and bool((motion.confidence > 0).any()):
        return _with_aspect(motion.intrinsics.double(), config.pixel_aspect)
    stated = samples.focal[samples.focal.isfinite().all(1)]
    point = config.principal_point or (width / 2, height / 2)
    if len(stated):
        fx, fy = stated.median(0).values
    else:
        rows = torch.nonzero(samples.local == 0)[:, 0]
        offset = samples.pixels - torch.tensor(point, dtype=torch.float32)[:, None]
        if config.pixel_aspect is not None:
            offset[:, 1] /= config.pixel_aspect
        fits = fit_focals(
            samples.points[rows],
            offset[samples.frame[rows]],
            samples.weight[rows],
            torch.zeros(len(rows), dtype=torch.float64),
            limits=config.focal_limits(samples.size),
        )
        focal = fits.focal[fits.focal.isfinite()]
        fx = focal.median() if len(focal) else torch.tensor(float(max(height, width)), dtype=torch.float64)
        fy = fx * (config.pixel_aspect or 1.0)
    ones = torch.ones(samples.num_frames, dtype=torch.float64)
    found = intrinsics_matrix(fx * ones, fy * ones, point[0] * ones, point[1] * ones)
    return _with_aspect(found, config.pixel_aspect)


def _with_aspect(intrinsics: Tensor, pixel_aspect: float | None) -> Tensor:
    """Intrinsics with fy = ``pixel_aspect`` fx and the same product of both; None changes nothing."""
    if pixel_aspect is None:
        return intrinsics
    mean = (intrinsics[:, 0, 0] * intrinsics[:, 1, 1] / pixel_aspect).sqrt()
    changed = intrinsics.clone()
    changed[:, 0, 0], changed[:, 1, 1] = mean, mean * pixel_aspect
    return changed


def _evidence_scale(
    pairs: Sequence[tuple[int, int, int, Tensor, Tensor]], factor: Tensor, intrinsics: Tensor, c2w: Tensor
) -> float | None:
    """Factor from the points' unit to that of the cameras' translations, by the depth that a static world must show.

    A coarse-to-fine search over the factor: points of one frame, moved by the given cameras, should have the depth
    that the other frame gives. None where no factor fits clearly better than all others (no parallax).
    """
    if not pairs:
        return None

    def cost(scale: float) -> float:
        values = []
        for window, first, last, z_first, z_last in pairs:
            s = scale * float(factor[window])
            k, pose = intrinsics.float(), c2w.float()
            flow, z = rigid_flow(s * z_first, k[first], pose[first], k[last], pose[last])
            place = flow + pixel_grid((flow.shape[0], flow.shape[1]))
            column, row = place.nan_to_num(nan=-1.0).floor().long().unbind(-1)
            inside = (column >= 0) & (column < z.shape[1]) & (row >= 0) & (row < z.shape[0])
            other = s * z_last[row.clamp(0, z.shape[0] - 1), column.clamp(0, z.shape[1] - 1)]
            ratio = (other / z).log().abs()
            known = inside & torch.isfinite(ratio)
            if int(known.sum()) >= 24:
                values.append(float(ratio[known].median()))
        return float(np.mean(values)) if values else float("inf")

    grid = np.exp(np.linspace(np.log(1e-2), np.log(1e2), 49))
    costs = np.array([cost(float(s)) for s in grid])
    best = int(costs.argmin())
    # Far points move like a turn alone: if a factor much too large fits as well, there is no parallax.
    if not np.isfinite(costs[best]) or costs[best] > 0.8 * costs[-1] or best in (0, len(grid) - 1):
        return None
    low, high = np.log(grid[best - 1]), np.log(grid[best + 1])
    fine = np.exp(np.linspace(low, high, 33))
    return float(fine[int(np.argmin([cost(float(s)) for s in fine]))])
