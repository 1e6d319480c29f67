"""Depth, point, camera and consistency metrics. Every reference-valid pixel and every reference frame counts.

A pixel without a finite prediction is wrong in ``delta`` and lowers ``coverage``; error means are over covered pixels,
so the two must be read together. ``delta`` and ``coverage`` are fractions of 1, translations in the unit of the
reference, angles in degrees. What cannot be determined is None with a reason, never 0 and never NaN.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.evaluation.l1 import DegenerateInput
from geo4d.geometry.cameras import project, resize_intrinsics, unproject
from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import (
    inverse,
    relative,
    rotation_angle,
    similarity_parts,
    transform,
    transform_cameras,
)

Average = Literal["pixel", "frame"]
"""``pixel``: all pixels of the sequence alike. ``frame``: mean over frames of the mean of each frame."""

PoseAlignment = Literal["none", "se3", "sim3"]

AUC_THRESHOLDS_DEG = (3, 5, 15, 30)
_AUC_FRAMES = 200

# Depth ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepthScores:
    """Depth errors on covered pixels, and shares of all valid pixels. Errors are None where no pixel is covered.

    Attributes:
        abs_rel: mean |p - r| / r.
        sq_rel: mean (p - r)^2 / r, unit of depth.
        rmse: unit of depth.
        rmse_log: natural logarithm.
        silog: 100 * standard deviation of the logarithmic error.
        log10: mean |log10 p - log10 r|.
        irmse: root mean square error of inverse depth, 1 / unit of depth.
        delta_125: share of valid pixels with ratio below 1.25; the next two: below 1.25^2 and 1.25^3.
        coverage: share of valid pixels with a finite, positive prediction.
        num_pixels: reference-valid pixels.
        num_frames: frames with at least one of them.
        num_empty_frames: frames without any, which cannot be scored.
    """

    abs_rel: float | None
    sq_rel: float | None
    rmse: float | None
    rmse_log: float | None
    silog: float | None
    log10: float | None
    irmse: float | None
    delta_125: float
    delta_125_2: float
    delta_125_3: float
    coverage: float
    num_pixels: int
    num_frames: int
    num_empty_frames: int


def depth_sums(
    predicted: Float[Tensor, "*f H W"],
    reference: Float[Tensor, "*f H W"],
    valid: Bool[Tensor, "*f H W"],
    *,
    floor: float = 0.0,
) -> Float[Tensor, "*f 12"]:
    """Per-frame sums, float64, from which ``depth_scores`` makes all depth metrics.

    Args:
        predicted: aligned z-depth; where it is not finite and positive, the pixel is not covered.
        reference: z-depth, positive where ``valid``.
        floor: denominators are at least this (0.01 in GeometryCrafter's protocol), unit of depth.
    """
    covered = valid & torch.isfinite(predicted) & (predicted > 0)
    p = torch.where(covered, predicted.double(), 1.0)
    r = torch.where(covered, reference.double(), 1.0)
    difference, log = (p - r).abs(), p.log() - r.log()
    ratio = torch.maximum(p / r.clamp(min=floor), r / p.clamp(min=floor))
    rows = [
        valid,
        covered,
        difference / r.clamp(min=floor),
        difference**2 / r,
        difference**2,
        log,
        log**2,
        log.abs() / math.log(10),
        (1 / p - 1 / r) ** 2,
        covered & (ratio < 1.25),
        covered & (ratio < 1.25**2),
        covered & (ratio < 1.25**3),
    ]
    return torch.stack([row.double().sum((-2, -1)) for row in rows], dim=-1)


def depth_scores(sums: Float[Tensor, "T 12"], *, average: Average = "pixel") -> DepthScores:
    """All depth metrics of one sequence from the ``depth_sums`` of its frames.

    In ``frame`` mode a frame without a covered pixel has no error mean, and is wrong in ``delta``; log10 is over all
    pixels in both modes.

    Raises:
        DegenerateInput: no valid reference pixel.
    Source: ``frame`` is the averaging of GeometryCrafter's released evaluation, ``pixel`` that of Geo4D's.
    """
    filled = sums[sums[:, 0] > 0]
    if filled.shape[0] == 0:
        raise DegenerateInput("no valid reference pixel")
    groups = filled.sum(0, keepdim=True) if average == "pixel" else filled
    shares = (groups[:, 9:] / groups[:, :1]).mean(0).tolist()
    seen = groups[groups[:, 1] > 0]
    names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "log10", "irmse")
    errors: dict[str, float | None] = dict.fromkeys(names)
    if seen.shape[0]:
        mean = seen / seen[:, 1:2]
        variance = (mean[:, 6] - mean[:, 5] ** 2).clamp(min=0)
        errors = {
            "abs_rel": float(mean[:, 2].mean()),
            "sq_rel": float(mean[:, 3].mean()),
            "rmse": float(mean[:, 4].sqrt().mean()),
            "rmse_log": float(mean[:, 6].sqrt().mean()),
            "silog": 100 * math.sqrt(float(variance.mean())),
            "log10": float(seen[:, 7].sum() / seen[:, 1].sum()),
            "irmse": float(mean[:, 8].sqrt().mean()),
        }
    return DepthScores(
        **errors,
        delta_125=shares[0],
        delta_125_2=shares[1],
        delta_125_3=shares[2],
        coverage=float(filled[:, 1].sum() / filled[:, 0].sum()),
        num_pixels=int(filled[:, 0].sum()),
        num_frames=filled.shape[0],
        num_empty_frames=sums.shape[0] - filled.shape[0],
    )


# Points --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PointScores:
    """Errors of camera-frame point maps.

    Attributes:
        point_rel: mean |p - r| / |r| on covered pixels (Rel^p), or None where nothing is covered.
        point_delta: share of valid pixels with that ratio below 0.25 (delta^p).
        coverage: share of valid pixels with a finite prediction.
    """

    point_rel: float | None
    point_delta: float
    coverage: float


def point_sums(
    predicted: Float[Tensor, "*f H W 3"],
    reference: Float[Tensor, "*f H W 3"],
    valid: Bool[Tensor, "*f H W"],
    *,
    floor: float = 0.01,
) -> Float[Tensor, "*f 4"]:
    """Per-frame sums, float64, from which ``point_scores`` makes the point metrics.

    Args:
        predicted: aligned points.
        reference: points.
        floor: the distance that errors are divided by is at least this, unit of the points.
    """
    covered = valid & torch.isfinite(predicted).all(-1)
    p = torch.where(covered[..., None], predicted.double(), 0.0)
    r = torch.where(covered[..., None], reference.double(), 0.0)
    ratio = (p - r).norm(dim=-1) / r.norm(dim=-1).clamp(min=floor)
    rows = [valid, covered, torch.where(covered, ratio, 0.0), covered & (ratio < 0.25)]
    return torch.stack([row.double().sum((-2, -1)) for row in rows], dim=-1)


def point_scores(sums: Float[Tensor, "T 4"], *, average: Average = "frame") -> PointScores:
    """Point metrics of one sequence from the ``point_sums`` of its frames.

    Raises:
        DegenerateInput: no valid reference pixel.
    Source: Rel^p and delta^p of GeometryCrafter, Table 1.
    """
    filled = sums[sums[:, 0] > 0]
    if filled.shape[0] == 0:
        raise DegenerateInput("no valid reference pixel")
    groups = filled.sum(0, keepdim=True) if average == "pixel" else filled
    seen = groups[groups[:, 1] > 0]
    return PointScores(
        point_rel=float((seen[:, 2] / seen[:, 1]).mean()) if seen.shape[0] else None,
        point_delta=float((groups[:, 3] / groups[:, 0]).mean()),
        coverage=float(filled[:, 1].sum() / filled[:, 0].sum()),
    )


# Cameras -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoseScores:
    """Camera path errors over the frames that have a predicted pose.

    Attributes:
        ate: root mean square distance of aligned camera centres, unit of the reference.
        ate_mean: mean of the same distances.
        ate_max: largest of the same distances.
        rpe_trans: root mean square translation error of the motion between neighbouring poses, unit of the reference.
        rpe_rot_deg: root mean square rotation error of the same.
        rot_deg: mean rotation error relative to the first posed frame.
        auc: share of frame pairs below 1, 2, .. N degrees in rotation and in direction of translation, averaged up to
            N, by N; a pair without poses is wrong.
        scale: factor of the alignment that takes predicted translations to the reference's unit.
        coverage: share of reference frames with a finite predicted pose.
        num_poses: frames with both.
        degenerate: why entries are None, or None.
        static_prediction: True where the prediction does not move (scored with its centre laid on the reference's).
    """

    ate: float | None
    ate_mean: float | None
    ate_max: float | None
    rpe_trans: float | None
    rpe_rot_deg: float | None
    rot_deg: float | None
    auc: dict[int, float | None]
    scale: float | None
    coverage: float
    num_poses: int
    degenerate: str | None
    static_prediction: bool


def path_degeneracy(centres: Float[Tensor, "T 3"]) -> str | None:
    """Why a camera path does not determine a similarity: one frame, no motion, or a straight line; else None."""
    if centres.shape[0] < 2:
        return "one frame"
    centres = centres.double()
    spread = torch.linalg.svdvals(centres - centres.mean(0)) / math.sqrt(centres.shape[0])
    if float(spread[0]) <= 1e-6 * max(1.0, float(centres.norm(dim=-1).max())):
        return "no motion"
    if spread.numel() < 2 or float(spread[1]) <= 1e-4 * float(spread[0]):
        return "collinear path"
    return None


def align_cameras(
    predicted_c2w: Float[Tensor, "T 4 4"],
    reference_c2w: Float[Tensor, "T 4 4"],
    alignment: PoseAlignment = "sim3",
) -> tuple[Float[Tensor, "T 4 4"], Float[Tensor, "4 4"]]:
    """Predicted cameras laid on the reference by their centres, and the similarity that did it, both float64.

    Source: Umeyama 1991, as in the ``evo`` tool; RPE and ATE of Geo4D use ``sim3``.
    """
    predicted, reference = predicted_c2w.double(), reference_c2w.double()
    if alignment == "none":
        return predicted, torch.eye(4, dtype=torch.float64, device=predicted.device)
    motion = fit_similarity(predicted[:, :3, 3], reference[:, :3, 3], with_scale=alignment == "sim3")
    return transform_cameras(motion, predicted), motion


def pose_scores(
    predicted_c2w: Float[Tensor, "T 4 4"],
    reference_c2w: Float[Tensor, "T 4 4"],
    *,
    alignment: PoseAlignment = "sim3",
    delta: int = 1,
    with_auc: bool = True,
) -> PoseScores:
    """Camera metrics of one sequence.

    Args:
        predicted_c2w: NaN for a frame without a pose.
        reference_c2w: finite.
        alignment: of the camera centres over posed frames.
        delta: frames between the poses of a relative error, counted in posed frames.
    Source: ATE and RPE as in ``evo`` (all pairs of distance ``delta``); AUC as in VGGT, with pairs of at most 200
        evenly spaced frames.
    """
    num_frames = reference_c2w.shape[0]
    posed = torch.isfinite(predicted_c2w).all(-1).all(-1)
    predicted, reference = predicted_c2w[posed].double(), reference_c2w[posed].double()
    coverage = float(posed.double().mean()) if num_frames else 0.0
    reason = path_degeneracy(reference_c2w[:, :3, 3])
    if reason is None and int(posed.sum()) < 2:
        reason = "fewer than two predicted poses"
    if reason is None and alignment != "none" and path_degeneracy(reference[:, :3, 3]) is not None:
        reason = f"{path_degeneracy(reference[:, :3, 3])} over the posed frames"
    auc: dict[int, float | None] = dict.fromkeys(AUC_THRESHOLDS_DEG)
    ate = ate_mean = ate_max = rpe_trans = rpe_rot = rot = scale = None
    static = False
    if int(posed.sum()) >= 2:
        static = path_degeneracy(predicted[:, :3, 3]) == "no motion"
        first, second = slice(None, -delta), slice(delta, None)
        turned = reference[:1, :3, :3].mT @ reference[:, :3, :3]
        rot = math.degrees(
            float(rotation_angle(turned.mT @ predicted[:1, :3, :3].mT @ predicted[:, :3, :3])[1:].mean())
        )
        if predicted.shape[0] > delta:
            error = relative(
                relative(reference[first], reference[second]), relative(predicted[first], predicted[second])
            )
            rpe_rot = math.degrees(_rms(rotation_angle(error[:, :3, :3])))
    if reason is None:
        aligned, motion = align_cameras(predicted, reference, alignment)
        scale = float(similarity_parts(motion)[0])
        distance = (aligned[:, :3, 3] - reference[:, :3, 3]).norm(dim=-1)
        ate, ate_mean, ate_max = _rms(distance), float(distance.mean()), float(distance.max())
        if predicted.shape[0] > delta:
            error = relative(
                relative(reference[first], reference[second]), relative(aligned[first], aligned[second])
            )
            rpe_trans = _rms(error[:, :3, 3].norm(dim=-1))
    if with_auc and num_frames >= 2 and path_degeneracy(reference_c2w[:, :3, 3]) != "no motion":
        auc = pose_auc(predicted_c2w, reference_c2w)
    return PoseScores(
        ate=ate,
        ate_mean=ate_mean,
        ate_max=ate_max,
        rpe_trans=rpe_trans,
        rpe_rot_deg=rpe_rot,
        rot_deg=rot,
        auc=auc,
        scale=scale,
        coverage=coverage,
        num_poses=int(posed.sum()),
        degenerate=reason,
        static_prediction=static,
    )


def pose_auc(
    predicted_c2w: Float[Tensor, "T 4 4"], reference_c2w: Float[Tensor, "T 4 4"]
) -> dict[int, float | None]:
    """Area under the accuracy curve of relative poses, per threshold in degrees; see ``PoseScores.auc``.

    The error of a pair is the larger of its rotation error and the angle between the directions of translation; where
    the reference does not move within the pair, the rotation error alone.
    """
    num_frames = reference_c2w.shape[0]
    if num_frames > _AUC_FRAMES:
        keep = torch.linspace(0, num_frames - 1, _AUC_FRAMES).round().long()
        predicted_c2w, reference_c2w = predicted_c2w[keep], reference_c2w[keep]
    predicted, reference = predicted_c2w.double(), reference_c2w.double()
    i, j = torch.triu_indices(reference.shape[0], reference.shape[0], offset=1)
    posed = torch.isfinite(predicted).all(-1).all(-1)
    both = posed[i] & posed[j]
    error = torch.full((i.shape[0],), torch.inf, dtype=torch.float64)
    p = relative(predicted[i[both]], predicted[j[both]])
    r = relative(reference[i[both]], reference[j[both]])
    turn = torch.rad2deg(rotation_angle(r[:, :3, :3].mT @ p[:, :3, :3]))
    p_step, r_step = p[:, :3, 3], r[:, :3, 3]
    cross, dot = torch.linalg.cross(p_step, r_step).norm(dim=-1), (p_step * r_step).sum(-1)
    direction = torch.rad2deg(torch.atan2(cross, dot))
    unmoved = p_step.norm(dim=-1) <= 1e-12
    direction = torch.where(unmoved, 180.0, direction)
    extent = (reference[:, :3, 3] - reference[:, :3, 3].mean(0)).norm(dim=-1).max()
    direction = torch.where(r_step.norm(dim=-1) <= 1e-6 * extent, 0.0, direction)
    error[both] = torch.maximum(turn, direction)
    return {
        limit: sum(float((error < k).double().mean()) for k in range(1, limit + 1)) / limit
        for limit in AUC_THRESHOLDS_DEG
    }


def associate(
    first_s: Float[Tensor, " n"], second_s: Float[Tensor, " m"], *, max_difference_s: float = 0.01
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Indices of matching stamps: for every stamp of the shorter list the nearest of the longer, if near enough.

    Source: the association of the ``evo`` tool.
    """
    if first_s.numel() > second_s.numel():
        second, first = associate(second_s, first_s, max_difference_s=max_difference_s)
        return first, second
    distance, nearest = _nearest(first_s.double(), second_s.double())
    matched = distance <= max_difference_s
    return torch.arange(first_s.numel())[matched], nearest[matched]


def _nearest(query: Tensor, stamps: Tensor) -> tuple[Tensor, Tensor]:
    order = stamps.argsort()
    ordered = stamps[order]
    after = torch.searchsorted(ordered, query).clamp(max=ordered.numel() - 1)
    before = (after - 1).clamp(min=0)
    to_after, to_before = (ordered[after] - query).abs(), (ordered[before] - query).abs()
    return torch.minimum(to_after, to_before), order[torch.where(to_before <= to_after, before, after)]


def _rms(values: Tensor) -> float:
    return math.sqrt(float((values**2).mean()))


@dataclass(frozen=True)
class IntrinsicsScores:
    """Errors of the intrinsics, both brought to pixels of the reference picture; means over frames with a prediction.

    Attributes:
        fx_rel, fy_rel: mean |f / f_reference - 1|, horizontal and vertical.
        fy_fx_rel: mean |(fy / fx) / (fy / fx of the reference) - 1|; 0 where both are wrong by one factor.
        cx_rel, cy_rel: mean |c - c_reference| over the width and over the height of the picture.
        coverage: share of reference frames with finite predicted intrinsics.
    """

    fx_rel: float | None
    fy_rel: float | None
    fy_fx_rel: float | None
    cx_rel: float | None
    cy_rel: float | None
    coverage: float


def intrinsics_scores(
    predicted: Float[Tensor, "T 3 3"],
    predicted_size: tuple[int, int],
    reference: Float[Tensor, "T 3 3"],
    reference_size: tuple[int, int],
) -> IntrinsicsScores:
    """Errors of the intrinsics of one sequence.

    Args:
        predicted: pixels of pictures of ``predicted_size`` (height, width); NaN for a frame without a prediction.
        reference: pixels of pictures of ``reference_size``.
    """
    ours = resize_intrinsics(predicted.double(), predicted_size, reference_size)
    theirs = reference.double()
    seen = torch.isfinite(ours).all(-1).all(-1) & (ours[:, 0, 0] > 0) & (ours[:, 1, 1] > 0)
    coverage = float(seen.double().mean())
    if not bool(seen.any()):
        return IntrinsicsScores(None, None, None, None, None, coverage)
    ours, theirs = ours[seen], theirs[seen]
    height, width = reference_size

    def mean(error: Tensor) -> float:
        return float(error.abs().mean())

    return IntrinsicsScores(
        fx_rel=mean(ours[:, 0, 0] / theirs[:, 0, 0] - 1),
        fy_rel=mean(ours[:, 1, 1] / theirs[:, 1, 1] - 1),
        fy_fx_rel=mean((ours[:, 1, 1] / ours[:, 0, 0]) / (theirs[:, 1, 1] / theirs[:, 0, 0]) - 1),
        cx_rel=mean((ours[:, 0, 2] - theirs[:, 0, 2]) / width),
        cy_rel=mean((ours[:, 1, 2] - theirs[:, 1, 2]) / height),
        coverage=coverage,
    )


def translation_parallax(
    depth: Float[Tensor, "H W"],
    intrinsics: Float[Tensor, "T 3 3"],
    c2w: Float[Tensor, "T 4 4"],
    frame: int,
    *,
    step: int = 8,
) -> float:
    """How far the translation of the camera moves what one frame sees, pixels.

    The median over points of the distance between where a frame sees them and where a camera that only turned would; of
    all frames the largest such median. Frames that see less than a quarter of the points are left out.

    Args:
        depth: reference z-depth of ``frame``; what is not finite is left out.
        intrinsics: pixels of ``depth``.
        c2w: finite reference cameras.
        frame: whose pixels are followed.
        step: every ``step``-th row and column is followed.
    Returns:
        0 where nothing can be followed.
    """
    height, width = depth.shape
    grid = depth[step // 2 :: step, step // 2 :: step]
    known = torch.isfinite(grid) & (grid > 0)
    if not bool(known.any()):
        return 0.0
    points = unproject(torch.where(torch.isfinite(depth), depth, 1.0).double(), intrinsics[frame].double())
    points = points[step // 2 :: step, step // 2 :: step][known]
    to_each = inverse(c2w.double()) @ c2w[frame].double()
    largest = 0.0
    for camera, motion in zip(intrinsics.double(), to_each, strict=True):
        moved, z = project(transform(motion, points), camera)
        turned, z_turned = project(points @ motion[:3, :3].mT, camera)
        inside = (z > 0) & (z_turned > 0) & (moved >= 0).all(-1)
        inside &= (moved[:, 0] < width) & (moved[:, 1] < height)
        if int(inside.sum()) * 4 >= len(points):
            largest = max(largest, float((moved - turned)[inside].norm(dim=-1).median()))
    return largest


# Consistency ---------------------------------------------------------------------------------------------------------


def static_correspondences(
    depth: Float[Tensor, "2 H W"],
    intrinsics: Float[Tensor, "2 3 3"],
    c2w: Float[Tensor, "2 4 4"],
    static: Bool[Tensor, "H W"] | None = None,
    *,
    step: int = 4,
    tolerance: float = 0.02,
) -> tuple[Int[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """Ground-truth tracks over two frames: pixels (row, column) of static surface seen in both.

    Args:
        depth: reference z-depth; NaN and infinity are left out.
        static: True where the first frame shows something that does not move; None takes all for static.
        step: every ``step``-th row and column of the first frame is followed.
        tolerance: relative depth difference at the target above which the point counts as hidden.
    """
    height, width = depth.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(step // 2, height, step), torch.arange(step // 2, width, step), indexing="ij"
    )
    usable = torch.isfinite(depth[0, rows, columns])
    if static is not None:
        usable = usable & static[rows, columns]
    rows, columns = rows[usable], columns[usable]
    points = unproject(depth[0].double(), intrinsics[0].double())[rows, columns]
    moved = transform(inverse(c2w[1].double()) @ c2w[0].double(), points)
    pixels, z = project(moved, intrinsics[1].double())
    column, row = pixels.unbind(-1)
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = torch.stack([rows, columns], -1)[inside]
    target = torch.stack([row[inside].long(), column[inside].long()], -1)
    there = depth[1, target[:, 0], target[:, 1]].double()
    agrees = (there - z[inside]).abs() < tolerance * z[inside]
    return source[agrees], target[agrees]


def depth_change_sums(
    predicted: Float[Tensor, "2 H W"],
    reference: Float[Tensor, "2 H W"],
    source: Int[Tensor, "n 2"],
    target: Int[Tensor, "n 2"],
) -> Float[Tensor, " 3"]:
    """Number of tracks, of covered tracks, and the sum over those of the error of the logarithmic depth change."""
    p = predicted[0, source[:, 0], source[:, 1]].double(), predicted[1, target[:, 0], target[:, 1]].double()
    r = reference[0, source[:, 0], source[:, 1]].double(), reference[1, target[:, 0], target[:, 1]].double()
    seen = torch.isfinite(p[0]) & torch.isfinite(p[1]) & (p[0] > 0) & (p[1] > 0)
    change = (p[1][seen] / p[0][seen]).log() - (r[1][seen] / r[0][seen]).log()
    return torch.stack([seen.double().new_tensor(seen.numel()), seen.double().sum(), change.abs().sum()])


def track_depth_change_sums(
    predicted: Float[Tensor, "2 H W"],
    reference_depth: Float[Tensor, "2 N"],
    tracks: Float[Tensor, "2 N 2"],
    visible: Bool[Tensor, "2 N"],
) -> Float[Tensor, " 3"]:
    """``depth_change_sums`` over given tracks (x, y in pixels of ``predicted``) instead of static geometry."""
    height, width = predicted.shape[-2:]
    known = torch.isfinite(tracks).all(-1) & torch.isfinite(reference_depth) & (reference_depth > 0)
    column, row = torch.where(known[..., None], tracks, -1.0).floor().long().unbind(-1)
    inside = visible & known & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    both = inside.all(0)
    row, column, truth = row[:, both], column[:, both], reference_depth[:, both].double()
    sampled = torch.stack([predicted[i, row[i], column[i]] for i in (0, 1)]).double()
    seen = (torch.isfinite(sampled) & (sampled > 0)).all(0)
    change = (sampled[1] / sampled[0])[seen].log() - (truth[1] / truth[0])[seen].log()
    return torch.stack([seen.double().new_tensor(seen.numel()), seen.double().sum(), change.abs().sum()])


def log_error_change(
    predicted: Float[Tensor, "2 H W"],
    reference: Float[Tensor, "2 H W"],
    source: Int[Tensor, "n 2"],
    target: Int[Tensor, "n 2"],
) -> Float[Tensor, " m"]:
    """Change of log(predicted / reference) of followed points from one frame to the next; 0 for a steady prediction.

    Both maps are read at the same pixels, so that a slanted surface adds nothing where a track is rounded to its pixel.

    Args:
        predicted, reference: z-depth; points without finite, positive values in both frames are left out.
        source, target: (row, column) of the points in the first and in the second frame.
    """
    error = predicted.double().log() - reference.double().log()
    change = error[1, target[:, 0], target[:, 1]] - error[0, source[:, 0], source[:, 1]]
    return change[torch.isfinite(change)]


def track_pixels(
    tracks: Float[Tensor, "2 N 2"], visible: Bool[Tensor, "2 N"], size: tuple[int, int]
) -> tuple[Int[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """(row, column) in both frames of the tracks (x, y) that are seen inside pictures of ``size`` in both."""
    height, width = size
    known = torch.isfinite(tracks).all(-1)
    column, row = torch.where(known[..., None], tracks, -1.0).floor().long().unbind(-1)
    inside = visible & known & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    both = inside.all(0)
    pixels = torch.stack([row, column], -1)[:, both]
    return pixels[0], pixels[1]


def unmoved_change(
    depth: Float[Tensor, "2 H W"], rgb: Float[Tensor, "2 H W 3"], *, tolerance: float = 0.02, radius: int = 2
) -> Float[Tensor, " n"]:
    """Change of log depth where a still camera's picture stays as it is: flicker without any ground truth.

    Args:
        depth: of two neighbouring frames; pixels without finite, positive values are left out.
        rgb: in [0, 1], at the same size.
        tolerance: largest change of a pixel's colour, averaged over its surroundings, that counts as none.
        radius: half size of the surroundings, pixels; all of them must be unchanged.
    """
    kernel = 2 * radius + 1
    change = (rgb[1] - rgb[0]).abs().amax(-1)[None, None]
    change = F.avg_pool2d(change, kernel, stride=1, padding=radius, count_include_pad=False)
    still = F.max_pool2d(change, kernel, stride=1, padding=radius)[0, 0] < tolerance
    logarithm = torch.where(depth > 0, depth.double(), torch.nan).log()
    found = (logarithm[1] - logarithm[0])[still]
    return found[torch.isfinite(found)]
