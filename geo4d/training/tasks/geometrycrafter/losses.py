"""What GeometryCrafter's networks are trained to minimise. Tensors in, numbers out; no network.

Source of the equations: GeometryCrafter, supplement, eq. (1) to (8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.diffusion.karras import v_preconditioning
from geo4d.models.geometrycrafter.decode import MAX_LOG_DEPTH, DecodedMaps, maps_to_points


@dataclass(frozen=True)
class PointMapWeights:
    """Weights of the terms of the point-map VAE. L1 of log depth has weight 1.

    The supplement names weights for normals and mask without telling their values in a form we could check. The default
    of the normals, 0.2, is that of MotionCrafter, the nearest public recipe; that of the mask is 1.

    Attributes:
        theta: of the L1 of theta, 1 in the supplement.
        normals: lambda_n, of 1 - cosine of the normals.
        mask: lambda_mask, of the squared error of the mask.
        patches: of the multi-scale depth.
        identity: of the disparity picture decoded by the frozen image decoder.
        alphas: the multi-scale depth compares patches of W / alpha x H / alpha for each of these; at least 1.
    """

    theta: float = 1.0
    normals: float = 0.2
    mask: float = 1.0
    patches: float = 1.0
    identity: float = 1.0
    alphas: tuple[int, ...] = (4, 16, 64)


def masked_mean(values: Float[Tensor, "*s"], valid: Bool[Tensor, "*s"]) -> Float[Tensor, ""]:
    """Mean over the valid pixels; 0 without any."""
    kept = torch.where(valid, values, 0.0)
    return kept.sum() / valid.sum().clamp(min=1)


def log_depth_loss(
    predicted: DecodedMaps, log_depth: Float[Tensor, "T H W"], valid: Bool[Tensor, "T H W"]
) -> Float[Tensor, ""]:
    """L1 of the logarithm of the depth over valid pixels."""
    return masked_mean((predicted.log_depth - log_depth).abs(), valid)


def theta_loss(
    predicted: DecodedMaps, theta: Float[Tensor, "T H W"], valid: Bool[Tensor, "T H W"]
) -> Float[Tensor, ""]:
    """L1 of the tangent of half the diagonal field of view over valid pixels."""
    return masked_mean((predicted.theta - theta).abs(), valid)


def normals_of_points(points: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T h w 3"]:
    """Unit normals of a point map inside its border (h = H - 2), from differences over two pixels.

    A flat or degenerate place, without area, gets the zero vector.
    """
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    return F.normalize(torch.cross(across, down, dim=-1), dim=-1, eps=1e-12)


def normal_loss(
    predicted: DecodedMaps, truth: DecodedMaps, valid: Bool[Tensor, "T H W"]
) -> Float[Tensor, ""]:
    """1 - cosine between the normals of two point maps, where a pixel and its four neighbours are valid."""
    cosine = (normals_of_points(maps_to_points(predicted)) * normals_of_points(maps_to_points(truth))).sum(-1)
    known = valid[:, 1:-1, 1:-1]
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        height, width = valid.shape[1:]
        known = known & valid[:, row : height - 2 + row, column : width - 2 + column]
    return masked_mean(1 - cosine, known)


def without_patch_mean(
    depth: Float[Tensor, "T H W"], valid: Bool[Tensor, "T H W"], alpha: int
) -> Float[Tensor, "T H W"]:
    """Depth less the mean of the valid pixels of its patch; ``alpha`` x ``alpha`` patches that do not overlap.

    Where a side does not divide, patches differ by a pixel: row r belongs to patch r * alpha // H.
    """
    rows, columns = (_membership(side, alpha, depth) for side in depth.shape[1:])
    weight = valid.to(depth)
    kept = torch.where(valid, depth, 0.0)
    total = rows @ kept @ columns.T
    count = rows @ weight @ columns.T
    mean = total / count.clamp(min=1)
    return torch.where(valid, depth - rows.T @ mean @ columns, 0.0)


def _membership(side: int, alpha: int, like: Tensor) -> Float[Tensor, "alpha side"]:
    """1 where a pixel belongs to a patch."""
    patch = torch.arange(side, device=like.device) * alpha // side
    return (patch == torch.arange(alpha, device=like.device)[:, None]).to(like)


def patch_depth_loss(
    predicted: DecodedMaps,
    log_depth: Float[Tensor, "T H W"],
    valid: Bool[Tensor, "T H W"],
    alphas: Sequence[int],
) -> Float[Tensor, ""]:
    """Sum over ``alphas`` of the L1 between depths of which the mean of their patch was taken away."""
    wanted = log_depth.clamp(max=MAX_LOG_DEPTH).exp()
    total = log_depth.new_zeros(())
    for alpha in alphas:
        error = without_patch_mean(predicted.depth, valid, alpha) - without_patch_mean(wanted, valid, alpha)
        total = total + masked_mean(error.abs(), valid)
    return total


def mask_loss(predicted: DecodedMaps, valid: Bool[Tensor, "T H W"]) -> Float[Tensor, ""]:
    """Squared error of the mask, which is 1 where valid and -1 elsewhere (inference asks for its sign)."""
    return (predicted.mask - (2.0 * valid - 1.0)).square().mean()


def point_map_losses(
    predicted: DecodedMaps,
    truth: DecodedMaps,
    valid: Bool[Tensor, "T H W"],
    picture: Float[Tensor, "T 3 H W"],
    decoded_picture: Float[Tensor, "T 3 H W"],
    weights: PointMapWeights,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Sum of all terms of the point-map VAE, and the terms before weighting.

    Args:
        predicted: by the point-map decoder.
        truth: normalised maps; ``truth.mask`` is not read.
        valid: where the truth has a surface.
        picture: the disparity picture that the image encoder saw, in [-1, 1].
        decoded_picture: what the frozen image decoder makes of the point map's latent.
    """
    parts = {
        "log_depth": log_depth_loss(predicted, truth.log_depth, valid),
        "theta": theta_loss(predicted, truth.theta, valid),
        "normals": normal_loss(predicted, truth, valid),
        "patches": patch_depth_loss(predicted, truth.log_depth, valid, weights.alphas),
        "identity": (decoded_picture - picture).square().mean(),
        "mask": mask_loss(predicted, valid),
    }
    factors = {name: getattr(weights, name, 1.0) for name in parts}
    total = torch.stack([factors[name] * value for name, value in parts.items()]).sum()
    return total, parts


@dataclass(frozen=True)
class NoisySample:
    """One training sample of the diffusion network.

    Attributes:
        scaled: what the network sees: c_in times the noisy latent.
        timestep: ln(noise level) / 4.
        noisy: the latent with noise.
        skip, out: c_skip and c_out, so that the estimate is ``skip * noisy + out * network``.
        weight: lambda of the noise level, 1 / c_out^2.
    """

    scaled: Float[Tensor, "B T c h w"]
    timestep: Float[Tensor, " B"]
    noisy: Float[Tensor, "B T c h w"]
    skip: Float[Tensor, " B"]
    out: Float[Tensor, " B"]
    weight: Float[Tensor, " B"]


def draw_noise_levels(
    normal: Float[Tensor, " B"], mean: float = 0.7, deviation: float = 1.6
) -> Float[Tensor, " B"]:
    """Noise levels whose logarithm is normal, from standard normal numbers.

    Source: GeometryCrafter, supplement: P_mean 0.7, P_std 1.6.
    """
    return (mean + deviation * normal).exp()


def add_noise(
    latent: Float[Tensor, "B T c h w"], noise: Float[Tensor, "B T c h w"], levels: Float[Tensor, " B"]
) -> NoisySample:
    """Noisy latents and the factors around the network, from the code that sampling uses.

    With data deviation 1 the weight of Karras et al., (level^2 + 1) / level^2, is 1 / c_out^2: the loss is then the
    squared error of the network's own output.
    """
    factors = [v_preconditioning(level) for level in levels.tolist()]

    def stacked(name: str) -> Tensor:
        return latent.new_tensor([getattr(factor, name) for factor in factors])

    noisy = latent + _over_maps(levels.to(latent)) * noise
    out = stacked("out")
    return NoisySample(
        scaled=noisy * _over_maps(stacked("scale_in")),
        timestep=stacked("timestep"),
        noisy=noisy,
        skip=stacked("skip"),
        out=out,
        weight=out**-2,
    )


def edm_loss(
    output: Float[Tensor, "B T c h w"], sample: NoisySample, latent: Float[Tensor, "B T c h w"]
) -> Float[Tensor, ""]:
    """Weighted squared error of the estimate of the clean latent.

    Args:
        output: of the network for ``sample``.
        latent: the clean one.
    Source: GeometryCrafter, supplement, eq. (8); Karras et al., eq. (8) with the v-prediction preconditioning.
    """
    estimate = sample.noisy * _over_maps(sample.skip) + output.float() * _over_maps(sample.out)
    return (_over_maps(sample.weight) * (estimate - latent).square()).mean()


def _over_maps(values: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1 1 1"]:
    return values[:, None, None, None, None]


@dataclass(frozen=True)
class LightWeights:
    """Weights of the terms of the light decoder; L1 of log depth has weight 1.

    Attributes:
        truth: of all terms against the truth, beside those against the teacher.
        theta: of the L1 of theta.
        mask: of the squared error of the mask.
        patches: of the multi-scale depth, against the teacher.
        change: of the L1 between the changes of log depth from frame to frame.
        alphas: see ``PointMapWeights``.
    """

    truth: float = 0.5
    theta: float = 1.0
    mask: float = 0.2
    patches: float = 0.3
    change: float = 1.0
    alphas: tuple[int, ...] = (4, 16, 64)


def change_loss(
    log_depth: Float[Tensor, "N H W"],
    target: Float[Tensor, "N H W"],
    valid: Bool[Tensor, "N H W"],
    num_frames: int,
) -> Float[Tensor, ""]:
    """L1 between the steps of two log depths from frame to frame, where both frames are valid; 0 for single frames."""
    steps = (log_depth - target).unflatten(0, (-1, num_frames)).diff(dim=1)
    known = valid.unflatten(0, (-1, num_frames))
    return masked_mean(steps.abs(), known[:, 1:] & known[:, :-1])


def light_losses(
    predicted: DecodedMaps,
    teacher: DecodedMaps,
    theta: Float[Tensor, "N H W"],
    log_depth: Float[Tensor, "N H W"],
    valid: Bool[Tensor, "N H W"],
    num_frames: int,
    weights: LightWeights,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Sum of all terms of the light decoder, and the terms before weighting.

    Args:
        predicted: by the light decoder.
        teacher: decoded from the same latents by the decoder it is to replace; where that sees a surface, its depth
            counts.
        theta, log_depth: the truth.
        valid: where the truth has a surface.
        num_frames: frames per clip.
    """
    sure = teacher.valid
    parts = {
        "log_depth": log_depth_loss(predicted, teacher.log_depth, sure),
        "theta": theta_loss(predicted, teacher.theta, sure),
        "mask": (predicted.mask - teacher.mask).square().mean(),
        "patches": patch_depth_loss(predicted, teacher.log_depth, sure, weights.alphas),
        "change": change_loss(predicted.log_depth, teacher.log_depth, sure, num_frames),
    }
    true_parts = {
        "true_log_depth": log_depth_loss(predicted, log_depth, valid),
        "true_theta": theta_loss(predicted, theta, valid),
        "true_mask": mask_loss(predicted, valid),
        "true_change": change_loss(predicted.log_depth, log_depth, valid, num_frames),
    }
    terms = [getattr(weights, name, 1.0) * value for name, value in parts.items()]
    for name, value in true_parts.items():
        terms.append(weights.truth * getattr(weights, name.removeprefix("true_"), 1.0) * value)
    return torch.stack(terms).sum(), parts | true_parts
