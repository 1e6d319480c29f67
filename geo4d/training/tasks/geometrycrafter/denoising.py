"""The diffusion network, generative or deterministic, on the latents of a frozen point-map VAE.

Legend of shape letters: B windows, T frames, c latent channels, h w latent size, D token width.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.models.deep_cache import DeepCache
from geo4d.models.geometrycrafter.config import (
    GeometryCrafterConfig,
    SchedulerConfig,
    UNetConfig,
    Variant,
)
from geo4d.models.geometrycrafter.embedding import embed_frames
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.windows import Conditioning, sample_window
from geo4d.training.loop import Task
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.losses import add_noise, draw_noise_levels, edm_loss
from geo4d.training.tasks.geometrycrafter.maps import normalise_window
from geo4d.training.tasks.geometrycrafter.networks import BLOCKS, FrozenNetworks, choose_trained
from geo4d.training.tasks.geometrycrafter.point_maps import depth_panel, normalised, to_maps
from geo4d.training.tasks.geometrycrafter.scores import mean_scores, window_scores
from geo4d.training.tasks.geometrycrafter.windows import Windows

FRAMES_AT_ONCE = 8
"""Frames that the frozen encoders treat together, and the decoder sees in an evaluation (as at inference)."""


@dataclass(frozen=True)
class NoiseConfig:
    """Of the noise levels and the noise.

    Attributes:
        mean, deviation: of the logarithm of the level. Source: GeometryCrafter, supplement.
        seed: of levels and noise.
    """

    mean: float = 0.7
    deviation: float = 1.6
    seed: int = 0


def encode_truth(batch: Windows, frozen: FrozenNetworks) -> Float[Tensor, "B T c h w"]:
    """Scaled latents of the true maps.

    Raises:
        ValueError: the frozen networks have no point-map VAE.
    """
    maps = torch.stack([window.encoder_input for window in normalised(batch)])
    return _encode_maps(maps, frozen)


def _encode_maps(maps: Float[Tensor, "B T 4 H W"], frozen: FrozenNetworks) -> Float[Tensor, "B T c h w"]:
    vae = frozen.point_map_vae
    if vae is None:
        raise ValueError("expected a point-map VAE among the frozen networks")
    parts = [vae.encode(part, frozen.image_vae) for part in maps.flatten(0, 1).split(FRAMES_AT_ONCE)]
    return torch.cat(parts).unflatten(0, maps.shape[:2]) * frozen.image_vae.config.scaling_factor


def encode_conditions(batch: Windows, frozen: FrozenNetworks) -> list[Conditioning]:
    """Tokens, frame latents and prior latents of each window, in the scales of inference.

    Raises:
        ValueError: the windows have no prior, or the frozen networks lack one.
    """
    if batch.prior_depth.shape[1] != batch.num_frames:
        raise ValueError("expected windows with a per-frame prior, got none")
    if frozen.image_encoder is None:
        raise ValueError("expected a frame encoder among the frozen networks")
    pairs = zip(batch.prior_depth, batch.prior_intrinsics, strict=True)
    maps = torch.stack([normalise_window(depth, intrinsics).encoder_input for depth, intrinsics in pairs])
    prior = _encode_maps(maps, frozen)
    found = []
    for rgb, latents in zip(batch.rgb, prior, strict=True):
        parts = rgb.split(FRAMES_AT_ONCE)
        tokens = torch.cat([embed_frames(part, frozen.image_encoder) for part in parts])
        video = torch.cat([frozen.image_vae.encode(part) for part in parts])
        found.append(Conditioning(tokens.float(), video.float(), latents.float()))
    return found


class Denoising(Task):
    """Loss (8) of the supplement for the generative variant; the squared error of the one answer for the other.

    Args:
        variant: ``diff`` or ``determ``.
        temporal_only: the second stage: train the layers that mix frames.
        validation: windows with a prior that check the run.
    """

    blocks = BLOCKS

    def __init__(
        self,
        unet: FrameTokenUNet,
        unet_config: UNetConfig,
        frozen: FrozenNetworks,
        variant: Variant,
        folder: FolderPlan,
        *,
        noise: NoiseConfig | None = None,
        temporal_only: bool = False,
        checkpointing: bool = False,
        validation: list[Windows] | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.unet_config, self.variant, self.folder = unet, unet_config, variant, folder
        self.frozen, self.noise = frozen, noise or NoiseConfig()
        self.validation = validation or []
        # As at inference without guidance: no overlap, the whole window at once.
        self.sampling = GeometryCrafterConfig()
        self.scheduler = SchedulerConfig()
        choose_trained(unet, temporal_only=temporal_only)
        if checkpointing:
            unet.enable_gradient_checkpointing()

    def forward(self, batch: Windows) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted squared error of the denoised latent; for ``determ`` of the latent in one step."""
        device = batch.rgb.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            frozen = self.frozen.on(device)
            latent = encode_truth(batch, frozen).float()
            conditions = encode_conditions(batch, frozen)
            video = torch.stack([one.video_latents for one in conditions])
            prior = torch.stack([one.prior_latents for one in conditions])
            tokens = torch.stack([one.tokens for one in conditions])
        if self.variant == "determ":
            timestep = latent.new_full((len(latent),), 0.25 * float(np.log(self.scheduler.sigma_max)))
            output = self.unet(torch.cat([prior, video], 2), timestep, tokens, self._ids(len(latent), device))
            return (-output.float() - latent).square().mean(), {}
        noise, levels = self._draw(batch.samples, tuple(latent.shape[1:]))
        sample = add_noise(latent, noise.to(device), levels)
        seen = torch.cat([sample.scaled, video, prior], 2)
        output = self.unet(seen, sample.timestep, tokens, self._ids(len(latent), device))
        with torch.autocast(device.type, enabled=False):
            return edm_loss(output.float(), sample, latent), {}

    def _ids(self, count: int, device: torch.device) -> Float[Tensor, "B 3"]:
        config = self.sampling
        ids = torch.tensor([config.fps, config.motion_bucket, config.noise_augmentation], device=device)
        return ids.expand(count, -1)

    def _draw(self, samples: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Noise and noise level of each sample, from (seed, sample) alone."""
        noise, normal = [], []
        for sample in samples.tolist():
            state = np.random.SeedSequence((self.noise.seed, 11, sample)).generate_state(1)
            generator = torch.Generator().manual_seed(int(state[0]))
            normal.append(torch.randn((), generator=generator))
            noise.append(torch.randn(shape, generator=generator))
        levels = draw_noise_levels(torch.stack(normal), self.noise.mean, self.noise.deviation)
        return torch.stack(noise), levels

    def sample_from(
        self,
        unet: FrameTokenUNet,
        conditioning: Conditioning,
        noise: Float[Tensor, "T c h w"] | None,
        config: GeometryCrafterConfig,
    ) -> Float[Tensor, "T c h w"]:
        """Scaled latents of one window as inference makes them, by any network and number of steps."""
        ids = self._ids(1, conditioning.tokens.device)
        cache = DeepCache(config.cache_interval)

        def network(sample: Tensor, timestep: float, tokens: Tensor) -> Tensor:
            return unet(sample[None], timestep, tokens[None], ids, cache)[0].float()

        return sample_window(self.variant, network, conditioning, noise, config, self.scheduler)

    def first_noise(self, window: Windows, conditioning: Conditioning) -> Float[Tensor, "T c h w"] | None:
        """Noise of a held-out window; None for the deterministic variant."""
        if self.variant == "determ":
            return None
        generator = torch.Generator().manual_seed(int(window.samples[0]))
        noise = torch.randn(conditioning.prior_latents.shape, generator=generator)
        return noise.to(conditioning.prior_latents)

    @torch.no_grad()
    def answers(self, window: Windows) -> dict[str, Float[Tensor, "T c h w"]]:
        """Scaled latents of one held-out window, by the prefix of their scores: those of the network have none."""
        (conditioning,) = encode_conditions(window, self.frozen.on(window.rgb.device))
        noise = self.first_noise(window, conditioning)
        return {"": self.sample_from(self.unet, conditioning, noise, self.sampling)}

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Depth of held-out windows: the network's, its prior's, and what the VAE makes of the truth itself."""
        device = next(self.unet.parameters()).device
        vae, factor = self.frozen.point_map_vae, self.frozen.image_vae.config.scaling_factor
        assert vae is not None
        rows = []
        panels: dict[str, Tensor] = {}
        for window in self.validation:
            window = window.to(device)
            (truth,) = normalised(window)
            decode = partial(decode_depth, vae=vae.to(device), factor=factor)
            depths = {name: decode(latents) for name, latents in self.answers(window).items()}
            answer, prior = depths[""], window.prior_depth[0]
            depths |= {"prior_": prior, "vae_": decode(encode_truth(window, self.frozen)[0])}
            row = {}
            for name, depth in depths.items():
                scores = window_scores(depth, window.depth[0], torch.isfinite(prior))
                row.update({f"{name}{key}": value for key, value in scores.items()})
            rows.append(row)
            if not panels:
                shown = [truth.maps.log_depth[0], prior[0].nan_to_num(1.0).log(), answer[0].log()]
                panels["depth"] = depth_panel(shown, truth.valid[0])
        return mean_scores(rows), panels

    def export(self, folder: Path) -> None:
        """Write the network of this variant into a model folder."""
        self.folder.write(folder, {f"unet_{self.variant}": (self.unet, self.unet_config)})


def decode_depth(
    latents: Float[Tensor, "T c h w"], vae: "torch.nn.Module", factor: float
) -> Float[Tensor, "T H W"]:
    parts = (latents / factor).split(FRAMES_AT_ONCE)
    return torch.cat([to_maps(vae.decode(part, len(part))).depth for part in parts])  # type: ignore[operator]
