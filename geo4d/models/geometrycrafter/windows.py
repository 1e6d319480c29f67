"""Sampling a long video in overlapping windows whose latents are carried from one to the next.

Legend of shape letters: T frames of a window, o shared frames, c latent channels, h w latent size, D token width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.diffusion.euler import sample_euler
from geo4d.diffusion.karras import Network, guided, karras_noise_levels, v_denoiser
from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, SchedulerConfig, Variant

UNet = Callable[[Tensor, float, Tensor], Tensor]
"""``unet(sample [T, C, h, w], timestep, tokens [T, D]) -> [T, c, h, w]``."""


@dataclass(frozen=True)
class Conditioning:
    """What the sampler needs to know about frames; small enough to keep for a whole video.

    Attributes:
        tokens: image embedding of each frame.
        video_latents: of the frames, not multiplied by the scaling factor.
        prior_latents: of the prior maps, multiplied by the scaling factor.
    """

    tokens: Float[Tensor, "T D"]
    video_latents: Float[Tensor, "T c h w"]
    prior_latents: Float[Tensor, "T c h w"]

    def __getitem__(self, frames: slice) -> "Conditioning":
        return Conditioning(self.tokens[frames], self.video_latents[frames], self.prior_latents[frames])

    @classmethod
    def join(cls, parts: list["Conditioning"]) -> "Conditioning":
        """One conditioning of consecutive pieces."""
        fields = ("tokens", "video_latents", "prior_latents")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def window_starts(num_frames: int, length: int, overlap: int) -> list[int]:
    """First frames of the windows of a video; every later window brings more than ``overlap`` frames.

    Raises:
        ValueError: not 0 <= overlap < length, or no frame.
    """
    if num_frames < 1:
        raise ValueError("expected at least one frame, got none")
    if not 0 <= overlap < length:
        raise ValueError(f"expected 0 <= overlap < length, got overlap {overlap} and length {length}")
    if num_frames <= length:
        return [0]
    return list(range(0, num_frames - overlap, length - overlap))


def draw_noise(
    window_length: int, latent_shape: tuple[int, int, int], seed: int
) -> Float[Tensor, "window c h w"]:
    """The noise of one window, which all windows of a video share (``frame_noise``); drawn on the CPU in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(window_length, *latent_shape, generator=generator)


def frame_noise(noise: Float[Tensor, "window c h w"], frames: Int[Tensor, " T"]) -> Float[Tensor, "T c h w"]:
    """Noise of frames by their number in the video.

    The published code rotates a buffer after every window: its last ``overlap`` frames move to the front. Written out,
    frame f always gets entry f modulo the window length, so the noise needs no state.
    """
    return noise[frames % len(noise)]


def sample_generative(
    unet: UNet,
    conditioning: Conditioning,
    noise: Float[Tensor, "T c h w"],
    config: GeometryCrafterConfig,
    scheduler: SchedulerConfig,
    previous: Float[Tensor, "o c h w"] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "T c h w"]:
    """Scaled latents of one window by Euler steps from pure noise.

    Args:
        previous: result of the window before for this window's first frames; they start from it plus full noise, which
            keeps their trajectory close to it.
        on_step: called with the step and the latents after it.
    """
    levels = karras_noise_levels(config.num_steps, scheduler.sigma_min, scheduler.sigma_max)
    highest = float(levels[0])
    x = noise.float() * (highest**2 + 1) ** 0.5
    if previous is not None and len(previous):
        shared = len(previous)
        x = torch.cat([previous.float() + noise[:shared].float() * highest, x[shared:]])

    def conditional(scaled: Tensor, timestep: float) -> Tensor:
        parts = [scaled, conditioning.video_latents, conditioning.prior_latents]
        return unet(
            torch.cat([part.to(scaled.dtype) for part in parts], dim=1), timestep, conditioning.tokens
        )

    def unconditional(scaled: Tensor, timestep: float) -> Tensor:
        nothing = torch.zeros_like(torch.cat([scaled, scaled], dim=1))
        sample = torch.cat([scaled, nothing], dim=1)
        return unet(sample, timestep, torch.zeros_like(conditioning.tokens))

    network: Network = conditional
    if config.guidance_scale > 1:
        network = guided(conditional, unconditional, config.guidance_scale)
    return sample_euler(v_denoiser(network), x, levels, on_step)


def sample_deterministic(
    unet: UNet, conditioning: Conditioning, scheduler: SchedulerConfig
) -> Float[Tensor, "T c h w"]:
    """Scaled latents of one window by a single pass at the highest noise level, with no noise."""
    level = torch.tensor(scheduler.sigma_max)
    sample = torch.cat([conditioning.prior_latents, conditioning.video_latents], dim=1)
    return -unet(sample, float(0.25 * level.log()), conditioning.tokens).float()


def blend_overlap(
    new: Float[Tensor, "T c h w"], previous: Float[Tensor, "o c h w"] | None
) -> Float[Tensor, "T c h w"]:
    """Cross-fade the first frames of a window with the window before; the weights include 0 and 1."""
    if previous is None or len(previous) == 0:
        return new
    shared = len(previous)
    weight = torch.linspace(0, 1, shared, device=new.device)[:, None, None, None]
    return torch.cat([new[:shared] * weight + previous * (1 - weight), new[shared:]])


def sample_window(
    variant: Variant,
    unet: UNet,
    conditioning: Conditioning,
    noise: Float[Tensor, "T c h w"] | None,
    config: GeometryCrafterConfig,
    scheduler: SchedulerConfig,
    previous: Float[Tensor, "o c h w"] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "T c h w"]:
    """Scaled latents of one window of either variant, blended with the window before.

    Raises:
        ValueError: the generative variant without noise, or more shared frames than the window has.
    """
    if previous is not None and len(previous) > len(conditioning.tokens):
        raise ValueError(
            f"expected at most {len(conditioning.tokens)} frames shared with the window before, got {len(previous)}"
        )
    if variant == "determ":
        new = sample_deterministic(unet, conditioning, scheduler)
    elif noise is None:
        raise ValueError("expected noise for the generative variant")
    else:
        new = sample_generative(unet, conditioning, noise, config, scheduler, previous, on_step)
    return blend_overlap(new, previous)
