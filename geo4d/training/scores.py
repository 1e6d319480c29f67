"""Quick scores of predicted windows against truth, to watch a training run. Reported figures come from ``evaluation``."""

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.fit import fit_scale_shift, fit_similarity
from geo4d.geometry.maps import ray_map_to_cameras
from geo4d.geometry.poses import rotation_angle
from geo4d.models.tiny.modalities import relative_to_first
from geo4d.types import Prediction

MAX_DEPTH = 70.0


def depth_scores(
    predicted: Float[Tensor, "B T H W"], depth: Float[Tensor, "B T H W"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Mean relative error, and share of pixels within 25 %, after a robust scale and shift of disparity per window.

    Args:
        predicted: affine disparity.
        depth: true depth; farther than 70 units is left out.
    """
    near = (depth < MAX_DEPTH).flatten(1)
    target = torch.where(near, 1 / depth.flatten(1), 0.0).double()
    source = predicted.flatten(1).double()
    weight = near.double()
    scale, shift = fit_scale_shift(source, target, weight)
    for _ in range(3):
        residual = (scale[:, None] * source + shift[:, None] - target).abs()
        floor = 1e-3 * (target * near).sum(1, keepdim=True) / near.sum(1, keepdim=True)
        scale, shift = fit_scale_shift(source, target, weight / (residual + floor))
    fitted = (scale[:, None] * source + shift[:, None]).clamp(min=1 / MAX_DEPTH)
    ratio = target / fitted
    count = near.sum(1)
    relative = ((ratio - 1).abs() * near).sum(1) / count
    close = ((torch.maximum(ratio, 1 / ratio.clamp(min=1e-9)) < 1.25) & near).sum(1) / count
    return relative.float(), close.float()


def camera_scores(
    rays: Float[Tensor, "B T 6 h w"], c2w: Float[Tensor, "B T 4 4"], length: Float[Tensor, " B"]
) -> dict[str, Float[Tensor, " B"]]:
    """Rotation error (degrees) and trajectory error (% of the median depth), and both of a camera that never moves."""
    truth = relative_to_first(c2w).double()
    results: dict[str, list[Tensor]] = {"rotation": [], "rotation_static": [], "ate": [], "ate_static": []}
    for window in range(rays.shape[0]):
        found = ray_map_to_cameras(rays[window].permute(0, 2, 3, 1)).double()
        error = rotation_angle(found[1:, :3, :3].mT @ truth[window, 1:, :3, :3])
        results["rotation"].append(torch.rad2deg(error).mean())
        results["rotation_static"].append(torch.rad2deg(rotation_angle(truth[window, 1:, :3, :3])).mean())
        path = truth[window, :, :3, 3] / length[window].double()
        static = (path - path.mean(0)).square().sum(-1).mean().sqrt()
        results["ate_static"].append(100 * static)
        guess = found[:, :3, 3]
        if (guess - guess.mean(0)).norm() < 1e-9:
            results["ate"].append(100 * static)
            continue
        motion = fit_similarity(guess, path)
        moved = guess @ motion[:3, :3].mT + motion[:3, 3]
        results["ate"].append(100 * (moved - path).square().sum(-1).mean().sqrt())
    return {name: torch.stack(values).float() for name, values in results.items()}


def spreads_and_errors(
    prediction: Prediction, depth: Float[Tensor, "T H W"]
) -> dict[str, tuple[Float[Tensor, " n"], Float[Tensor, " n"]]]:
    """Predicted spreads of one window with the errors seen there, on surfaces: ``disparity`` and ``points``.

    Disparity is compared after the best scale and shift of the truth, every seventh pixel of all frames; points by their
    depth in the window's first frame, after one factor of medians.

    Args:
        prediction: with spreads of both.
        depth: true depth, +inf in the sky.
    """
    assert prediction.disparity is not None
    assert prediction.disparity_uncertainty is not None
    assert prediction.point_map is not None
    assert prediction.point_uncertainty is not None
    surface = torch.isfinite(depth)
    truth = torch.where(surface, 1 / depth, 0.0)
    if int(surface[0].sum()) < 10:
        return {}
    scale, shift = fit_scale_shift(truth[surface], prediction.disparity[surface])
    error = (prediction.disparity - (truth * scale + shift)).abs()
    first, own = surface[0], prediction.point_map[0, ..., 2]
    factor = own[first].median() / depth[0][first].median()
    return {
        "disparity": (prediction.disparity_uncertainty[surface][::7], error[surface][::7]),
        "points": (prediction.point_uncertainty[0][first], (own - depth[0] * factor).abs()[first]),
    }
