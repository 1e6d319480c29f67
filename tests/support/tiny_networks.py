"""What several tests share."""

import torch

from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.network import TinyUNet


def run(net: TinyUNet, rgb, latent, frames, evidence=None, timestep=999):
    size = (rgb.shape[-2], rgb.shape[-1])
    evidence = evidence or no_evidence(rgb.shape[0], rgb.shape[1], size, rgb)
    step = torch.full((rgb.shape[0],), timestep)
    return net(latent, step, net.encode_condition(rgb, evidence), frames)


def inputs(batch: int = 2, frames: int = 3, size: tuple[int, int] = (32, 48)):
    channels = smallest_preset().latent_channels
    rgb = torch.rand(batch, frames, 3, *size) * 2 - 1
    latent = torch.randn(batch, frames, channels, size[0] // 8, size[1] // 8)
    return rgb, latent, torch.arange(frames).float().expand(batch, -1)
