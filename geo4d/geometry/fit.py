"""Closed-form and reweighted fits: similarity between point sets, scale and shift, focal length, camera from points."""

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.poses import nearest_rotation, rigid, similarity, so3_exp, transform


def fit_similarity(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weight: Float[Tensor, "*b n"] | None = None,
    *,
    with_scale: bool = True,
) -> Float[Tensor, "*b 4 4"]:
    """Similarity (or rigid motion) that takes ``source`` onto ``target`` with the least weighted squared distance.

    Args:
        weight: >= 0; zero drops a point. None weighs all alike.
        with_scale: False keeps the scale at 1.
    Returns:
        [4, 4] with scale * rotation in the upper left block. Where the source has no extent, the scale is 1; where
        points lie on a line, the rotation about that line is arbitrary but a rotation.
    Raises:
        ValueError: fewer than one point has weight.
    Source: Umeyama 1991, eq. (40) to (43).
    Examples:
        >>> corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> fitted = fit_similarity(corners, 2 * corners + torch.tensor([0.0, 0.0, 5.0]))
        >>> bool(torch.allclose(fitted, torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])) + torch.tensor(
        ...     [[0.0] * 4, [0.0] * 4, [0.0, 0.0, 0.0, 5.0], [0.0] * 4]), atol=1e-5))
        True
    """
    if weight is None:
        weight = torch.ones_like(source[..., 0])
    total = weight.sum(-1, keepdim=True)
    if bool((total <= 0).any()):
        raise ValueError("expected at least one point with positive weight, got none; check the valid mask")
    share = (weight / total)[..., None]
    source_mean = (share * source).sum(-2, keepdim=True)
    target_mean = (share * target).sum(-2, keepdim=True)
    source_centred, target_centred = source - source_mean, target - target_mean
    covariance = (share * target_centred).mT @ source_centred
    rotation = nearest_rotation(covariance)
    if with_scale:
        spread = (share * source_centred**2).sum((-2, -1))
        trace = (rotation * covariance).sum((-2, -1))
        flat = spread <= torch.finfo(source.dtype).tiny
        scale = torch.where(flat, 1.0, trace / torch.where(flat, 1.0, spread))
    else:
        scale = torch.ones_like(total[..., 0])
    translation = target_mean[..., 0, :] - scale[..., None] * (rotation @ source_mean.mT)[..., 0]
    return similarity(scale, rotation, translation)


def fit_similarity_robust(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weight: Float[Tensor, "*b n"] | None = None,
    *,
    with_scale: bool = True,
    num_iterations: int = 12,
) -> Float[Tensor, "*b 4 4"]:
    """As ``fit_similarity``, for the sum of distances instead of squares (reweighted), so that outliers count little."""
    base = torch.ones_like(source[..., 0]) if weight is None else weight
    result = fit_similarity(source, target, base, with_scale=with_scale)
    for _ in range(num_iterations):
        residual = (transform(result, source) - target).norm(dim=-1)
        floor = 1e-3 * (base * residual).sum(-1, keepdim=True) / base.sum(-1, keepdim=True) + 1e-12
        result = fit_similarity(source, target, base / residual.clamp(min=floor), with_scale=with_scale)
    return result


def fit_scale(
    source: Float[Tensor, "*b n"], target: Float[Tensor, "*b n"], weight: Float[Tensor, "*b n"] | None = None
) -> Float[Tensor, "*b"]:
    """Weighted least-squares factor that takes ``source`` onto ``target``.

    Raises:
        ValueError: no sample has weight and a source value other than 0.
    Examples:
        >>> float(fit_scale(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])))
        3.0
    """
    weight = torch.ones_like(source) if weight is None else weight
    power = (weight * source * source).sum(-1)
    if bool((power <= 0).any()):
        raise ValueError(
            "expected at least one weighted sample that is not 0, got none; check the valid mask"
        )
    return (weight * source * target).sum(-1) / power


def fit_scale_median(source: Float[Tensor, " n"], target: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """median(target) / median(source): the factor of the median-scale protocol.

    Raises:
        ValueError: no sample, or the median of the source is 0.
    """
    if source.numel() == 0:
        raise ValueError("expected at least one sample, got none; check the valid mask")
    middle = source.median()
    if middle == 0:
        raise ValueError("expected a source with a median other than 0, got 0")
    return target.median() / middle


def fit_scale_shift(
    source: Float[Tensor, "*b n"], target: Float[Tensor, "*b n"], weight: Float[Tensor, "*b n"] | None = None
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Weighted least-squares scale and shift that take ``source`` onto ``target``.

    Args:
        source: affine disparity (or depth).
        target: disparity to reach.
        weight: >= 0; zero drops a sample.
    Returns:
        scale and shift; where all weighted sources are equal, the scale is 0 and the shift the mean target.
    Raises:
        ValueError: fewer than two samples have weight.
    Source: starting value of the disparity term, Geo4D Eq. (5).
    Examples:
        >>> [float(x) for x in fit_scale_shift(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0, 5.0]))]
        [2.0, 1.0]
    """
    weight = torch.ones_like(source) if weight is None else weight
    if bool(((weight > 0).sum(-1) < 2).any()):
        raise ValueError(
            "expected at least two samples with positive weight, got fewer; check the valid mask"
        )
    total = weight.sum(-1)
    source_mean = (weight * source).sum(-1) / total
    target_mean = (weight * target).sum(-1) / total
    centred = source - source_mean[..., None]
    variance = (weight * centred**2).sum(-1)
    covariance = (weight * centred * (target - target_mean[..., None])).sum(-1)
    flat = variance <= torch.finfo(source.dtype).eps * (weight * source**2).sum(-1)
    scale = torch.where(flat, 0.0, covariance / torch.where(flat, 1.0, variance))
    return scale, target_mean - scale * source_mean


def fit_camera_pose(
    world_points: Float[Tensor, "*b n 3"],
    rays: Float[Tensor, "*b n 3"],
    weight: Float[Tensor, "*b n"] | None = None,
    *,
    initial_w2c: Float[Tensor, "*b 4 4"],
    num_iterations: int = 20,
    robust_width: float = 0.01,
) -> Float[Tensor, "*b 4 4"]:
    """World to camera of a calibrated camera from points and their viewing rays, refined from a starting pose.

    Robust Gauss-Newton on the error in the plane z = 1 with damping; batched, so all frames of a video are one call.

    Args:
        rays: viewing rays with z = 1, in camera axes.
        weight: >= 0; zero drops a point.
        initial_w2c: starting pose.
        robust_width: error in units of the focal length where the weight starts to fall (Cauchy).
    Returns:
        ``w2c``. Points behind the camera get no weight; with fewer than three usable points the start is returned.
    """
    base = torch.ones_like(rays[..., 0]) if weight is None else weight
    pose = initial_w2c.to(torch.float64)
    points, target = world_points.to(torch.float64), rays[..., :2].to(torch.float64)
    base = base.to(torch.float64)
    identity = torch.eye(6, dtype=torch.float64, device=points.device)
    damping = torch.full(pose.shape[:-2], 1e-4, dtype=torch.float64, device=points.device)

    def error_of(w2c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        camera = transform(w2c, points)
        uv = camera[..., :2] / camera[..., 2:].clamp(min=1e-6)
        return camera, uv - target, camera[..., 2] > 1e-6

    def cost(error: Tensor, usable: Tensor, width: Tensor) -> Tensor:
        squared = (error**2).sum(-1) / width[..., None] ** 2
        # A point behind the camera costs as much as a far outlier, so that no step gains by hiding points there.
        return (base * torch.where(usable, torch.log1p(squared), 20.0)).sum(-1)

    for _ in range(num_iterations):
        camera, error, usable = error_of(pose)
        # Graduated: as wide as the current median error, so that a far start is not taken for outliers.
        seen = torch.where(usable & (base > 0), error.norm(dim=-1), torch.nan)
        width = torch.nan_to_num(seen.nanmedian(dim=-1).values, nan=1.0).clamp(min=robust_width)
        u, v = (error + target).unbind(-1)
        inverse_z = 1 / camera[..., 2].clamp(min=1e-6)
        zero = torch.zeros_like(u)
        # Left perturbation of w2c: d(camera point) = translation + rotation x point.
        row_u = torch.stack([inverse_z, zero, -u * inverse_z, -u * v, 1 + u * u, -v], -1)
        row_v = torch.stack([zero, inverse_z, -v * inverse_z, -1 - v * v, u * v, u], -1)
        row_weight = base * usable / (1 + (error**2).sum(-1) / width[..., None] ** 2)
        normal = torch.einsum("...n,...ni,...nj->...ij", row_weight, row_u, row_u)
        normal = normal + torch.einsum("...n,...ni,...nj->...ij", row_weight, row_v, row_v)
        gradient = torch.einsum("...n,...ni->...i", row_weight * error[..., 0], row_u)
        gradient = gradient + torch.einsum("...n,...ni->...i", row_weight * error[..., 1], row_v)
        trace = normal.diagonal(dim1=-2, dim2=-1).mean(-1)
        damped = normal + (damping * trace + 1e-12)[..., None, None] * identity
        step = -torch.linalg.solve(damped, gradient[..., None])[..., 0]
        candidate = rigid(so3_exp(step[..., 3:]), step[..., :3]) @ pose
        _, candidate_error, candidate_usable = error_of(candidate)
        better = cost(candidate_error, candidate_usable, width) < cost(error, usable, width)
        pose = torch.where(better[..., None, None], candidate, pose)
        damping = torch.where(better, damping * 0.3, damping * 10).clamp(1e-9, 1e6)
    enough = ((base > 0).sum(-1) >= 3)[..., None, None]
    return torch.where(enough, pose, initial_w2c.to(torch.float64)).to(world_points.dtype)
