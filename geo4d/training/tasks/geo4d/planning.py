"""Memory that Geo4D's stages need, before anything is loaded."""

from typing import Any

import torch
from torch import Tensor, nn

from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE
from geo4d.models.light_decoder import LightDecoder
from geo4d.training.full import BLOCKS
from geo4d.training.memory import MemoryPlan, plan_stage
from geo4d.training.plans import Preset, Stage


def plan(preset: Preset, stage: Stage, name: str, *, micro_batch: int, processes: int) -> MemoryPlan:
    """Plan a stage at its largest size."""
    size = max((stream.size for stream in stage.streams), key=lambda size: size[0] * size[1])
    frames, config = stage.sampling.num_frames, preset.geo4d
    factor = config.vae.downsampling
    latent = (size[0] // factor, size[1] // factor)
    with torch.device("meta"):
        vae = sum(p.numel() for p in VAE(config.vae).parameters())
        unet_parameters = sum(p.numel() for p in UNet(config.unet).parameters())
    title = f"{name}: {micro_batch} x {frames} frames of {size[0]}x{size[1]} in one process"
    common: dict[str, Any] = {
        "blocks": BLOCKS, "processes": processes, "bf16": stage.loop.precision == "bf16", "recomputes": False,
    }  # fmt: skip
    if stage.kind in ("diffusion", "one-step"):
        tokens = config.unet.text_tokens + config.resampler.num_queries * config.resampler.num_frames

        def unet(recompute: bool) -> nn.Module:
            network = UNet(config.unet)
            network.gradient_checkpointing = recompute
            return network

        def unet_loss(network: Any) -> Tensor:
            seen = torch.zeros(micro_batch, config.unet.in_channels, frames, *latent)
            context = torch.zeros(micro_batch, tokens, config.unet.context_dim)
            number = torch.zeros(micro_batch)
            return network(seen, number, context, number).float().square().mean()

        teacher = unet_parameters if stage.kind == "one-step" else 0
        common["recomputes"] = True
        return plan_stage(title, unet, unet_loss, frozen=vae + teacher, **common)
    pictures = micro_batch * frames
    if stage.kind == "light":

        def light_loss(network: Any) -> Tensor:
            maps = network(torch.zeros(pictures, config.vae.latent_channels, *latent))
            return torch.stack([part.float().square().mean() for part in maps]).sum()

        return plan_stage(
            title, lambda _: LightDecoder(preset.light_decoder), light_loss, frozen=vae, **common
        )

    def coder(_: bool) -> nn.Module:
        network = VAE(config.vae)
        if stage.kind == "decoder":
            network.requires_grad_(False)
            network.decoder.requires_grad_(True)
            network.decoder_adaptor.requires_grad_(True)
        return network

    def coder_loss(network: Any) -> Tensor:
        if stage.kind == "decoder":
            z = torch.zeros(pictures, config.vae.latent_channels, *latent)
            return network.decode_with_uncertainty(z).float().square().mean()
        moments = network.moments(torch.zeros(5 * pictures, config.vae.in_channels, *size))
        return network.decode(moments.chunk(2, dim=1)[0]).float().square().mean()

    return plan_stage(title, coder, coder_loss, frozen=0, **common)
