"""Camera metrics: paths after alignment, relative motion, pairs of frames."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import relative, rotation_angle, similarity_parts, transform_cameras

PoseAlignment = Literal["none", "se3", "sim3"]

AUC_THRESHOLDS_DEG = (3, 5, 15, 30)
_AUC_FRAMES = 200


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
