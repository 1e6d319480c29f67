"""From what a network predicts to what a sampler reads, guidance, and the training target. Knows no
network.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``denoise(x, timestep) -> x0``: the noisy latent and its timestep [B] give the estimate of the clean
latent.
"""


def _expand(table: Tensor, timestep: Tensor, like: Tensor) -> Tensor:
    return table.to(like.device)[timestep].to(like.dtype).reshape(-1, *([1] * (like.ndim - 1)))


def v_to_x0(
    x: Float[Tensor, "B ..."],
    v: Float[Tensor, "B ..."],
    timestep: Int[Tensor, " B"],
    alphas_cumprod: Float[Tensor, " n"],
) -> Float[Tensor, "B ..."]:
    """Clean latent from a v-prediction: sqrt(a) x - sqrt(1 - a) v.

    Source: Salimans & Ho, "Progressive Distillation", appendix D.
    """
    signal = _expand(alphas_cumprod.sqrt().float(), timestep, x)
    noise = _expand((1 - alphas_cumprod).sqrt().float(), timestep, x)
    return signal * x - noise * v


def noised(
    clean: Float[Tensor, "B ..."],
    noise: Float[Tensor, "B ..."],
    timestep: Int[Tensor, " B"],
    alphas_cumprod: Float[Tensor, " n"],
) -> Float[Tensor, "B ..."]:
    """The forward process: sqrt(a) clean + sqrt(1 - a) noise."""
    signal = _expand(alphas_cumprod.sqrt().float(), timestep, clean)
    spread = _expand((1 - alphas_cumprod).sqrt().float(), timestep, clean)
    return signal * clean + spread * noise


def v_target(
    clean: Float[Tensor, "B ..."],
    noise: Float[Tensor, "B ..."],
    timestep: Int[Tensor, " B"],
    alphas_cumprod: Float[Tensor, " n"],
) -> Float[Tensor, "B ..."]:
    """What a v-predicting network is trained towards: sqrt(a) noise - sqrt(1 - a) clean."""
    signal = _expand(alphas_cumprod.sqrt().float(), timestep, clean)
    spread = _expand((1 - alphas_cumprod).sqrt().float(), timestep, clean)
    return signal * noise - spread * clean


def v_training_pair(
    latent: Float[Tensor, "B ..."],
    noise: Float[Tensor, "B ..."],
    timestep: Int[Tensor, " B"],
    alphas_cumprod: Float[Tensor, " n"],
    scale: Float[Tensor, " n_scale"],
) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
    """Noisy input and v-target of one training sample, the dynamic rescale included.

    Args:
        latent: clean latent as the codec gives it.
        noise: standard normal, same shape.
        timestep: one per sample.
        alphas_cumprod, scale: tables of the schedule.
    Returns:
        noisy latent and target; both are made from ``latent * scale[timestep]``.
    Source: Geo4D's training step (mean squared error between the network's output and the target, no
    weights).
    """
    clean = latent * _expand(scale.float(), timestep, latent)
    return noised(clean, noise, timestep, alphas_cumprod), v_target(clean, noise, timestep, alphas_cumprod)


def guide(
    conditional: Float[Tensor, "B ..."],
    unconditional: Float[Tensor, "B ..."],
    scale: float,
    *,
    partial: Float[Tensor, "B ..."] | None = None,
    partial_scale: float = 1.0,
    rescale: float = 0.0,
) -> Float[Tensor, "B ..."]:
    """Classifier-free guidance on the network's output.

    Args:
        conditional: output with all conditions.
        unconditional: output with none.
        scale: 1 gives ``conditional`` back.
        partial: output with one of two conditions (for Geo4D: empty text, real image tokens), or None.
        partial_scale: guidance of that condition over none.
        rescale: in [0, 1]; mixes in the result brought to the standard deviation of ``conditional`` per
            sample.
    Source: Ho & Salimans; rescale: Lin et al., "Common Diffusion Noise Schedules...", section 3.4.
    """
    if partial is None:
        guided = unconditional + scale * (conditional - unconditional)
    else:
        guided = unconditional + partial_scale * (partial - unconditional) + scale * (conditional - partial)
    if rescale > 0:
        axes = tuple(range(1, guided.ndim))
        ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        guided = rescale * (guided * ratio) + (1 - rescale) * guided
    return guided


def denoise_from_v(
    predict_v: Callable[[Tensor, Tensor, object], Tensor],
    conditions: Sequence[object],
    alphas_cumprod: Float[Tensor, " n"],
    *,
    scale: float = 1.0,
    partial_scale: float | None = None,
    rescale: float = 0.0,
) -> Denoise:
    """Wrap a v-predicting network into ``denoise(x, timestep) -> x0``, guidance included.

    Args:
        predict_v: ``(x, timestep, condition) -> v``.
        conditions: the full condition; then, for guidance, the empty one; then, for two-condition guidance,
            the partial one.
        alphas_cumprod: table of the schedule.
        scale: guidance scale. With 1 and no partial condition the other branches are not evaluated.
        partial_scale: guidance of the partial condition over none; None where there is none.
        rescale: see :func:`guide`.
    Raises:
        ValueError: guidance is asked for without the conditions it needs.
    """
    guided = scale != 1.0 or partial_scale is not None
    needed = 1 + guided + (partial_scale is not None)
    if len(conditions) < needed:
        raise ValueError(f"expected {needed} conditions for this guidance, got {len(conditions)}")

    def denoise(x: Tensor, timestep: Tensor) -> Tensor:
        v = predict_v(x, timestep, conditions[0])
        if guided:
            v_empty = predict_v(x, timestep, conditions[1])
            v_partial = None if partial_scale is None else predict_v(x, timestep, conditions[2])
            v = guide(
                v,
                v_empty,
                scale,
                partial=v_partial,
                partial_scale=1.0 if partial_scale is None else partial_scale,
                rescale=rescale,
            )
        with torch.autocast(x.device.type, enabled=False):
            return v_to_x0(x.float(), v.float(), timestep, alphas_cumprod)

    return denoise
