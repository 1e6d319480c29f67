"""Memory that GeometryCrafter's stages need, before anything is loaded."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from geo4d.models.geometrycrafter.config import Variant
from geo4d.models.geometrycrafter.embedding import build_image_encoder
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
from geo4d.models.light_decoder import LightDecoder
from geo4d.training.memory import MemoryPlan, plan_stage
from geo4d.training.tasks.geometrycrafter.networks import BLOCKS, choose_trained
from geo4d.training.tasks.geometrycrafter.presets import Preset, Stage


def count_parameters(make: Callable[[], nn.Module]) -> int:
    """Parameters of a network that is made without numbers."""
    with torch.device("meta"):
        return sum(p.numel() for p in make().parameters())


class _Coders(nn.Module):
    """The point-map VAE and the frozen picture coder through whose decoder the identity loss looks."""

    def __init__(self, preset: Preset, temporal_only: bool, recompute: bool) -> None:
        super().__init__()
        self.vae = PointMapVAE(preset.sizes.point_map_vae)
        self.image_vae = ImageVAE(preset.sizes.image_vae, with_decoder=True).requires_grad_(False)
        choose_trained(self.vae.decoder, temporal_only=temporal_only)
        self.vae.encoder.requires_grad_(not temporal_only)
        self.temporal_only = temporal_only
        if recompute:
            self.vae.recompute()
            self.image_vae.recompute_decoder()

    def loss(self, frames: int, clips: int, size: tuple[int, int]) -> Tensor:
        """As ``PointMapCoding`` calls them."""
        with torch.set_grad_enabled(not self.temporal_only):
            latent = self.vae.encode(torch.zeros(clips * frames, 4, *size), self.image_vae)
        terms = [part.square().mean() for part in self.vae.decode(latent, frames)]
        if not self.temporal_only:
            terms.append(self.image_vae.decode(latent, frames).square().mean())
        return torch.stack(terms).sum()


def plan(
    preset: Preset, stage: Stage, name: str, *, variant: Variant, micro_batch: int, processes: int
) -> MemoryPlan:
    """Plan a stage at its longest window."""
    sizes, size = preset.sizes, stage.cut.size
    frames = min(stage.cut.frames[1], stage.seen or stage.cut.frames[1])
    image_vae = count_parameters(lambda: ImageVAE(sizes.image_vae, with_decoder=True))
    encoder = count_parameters(lambda: build_image_encoder(sizes.image_encoder))
    point_vae = count_parameters(lambda: PointMapVAE(sizes.point_map_vae))
    latent = (size[0] // sizes.image_vae.reduction, size[1] // sizes.image_vae.reduction)
    title = f"{name}: {micro_batch} x {frames} frames of {size[0]}x{size[1]} in one process"
    common: dict[str, Any] = {
        "blocks": BLOCKS, "processes": processes, "bf16": stage.loop.precision == "bf16", "recomputes": False,
    }  # fmt: skip
    if stage.kind in ("unet", "one-step"):
        config = sizes.unet_for(variant)

        def unet(recompute: bool) -> nn.Module:
            network = FrameTokenUNet(**asdict(config))
            choose_trained(network, temporal_only=stage.temporal_only)
            if recompute:
                network.enable_gradient_checkpointing()
            return network

        def unet_loss(network: Any) -> Tensor:
            seen = torch.zeros(micro_batch, frames, config.in_channels, *latent)
            tokens = torch.zeros(micro_batch, frames, int(config.cross_attention_dim))  # type: ignore[arg-type]
            ids, timestep = torch.zeros(micro_batch, 3), torch.zeros(micro_batch)
            return network(seen, timestep, tokens, ids).float().square().mean()

        teacher = count_parameters(lambda: unet(False)) if stage.kind == "one-step" else 0
        common["recomputes"] = True
        return plan_stage(title, unet, unet_loss, frozen=image_vae + encoder + point_vae + teacher, **common)
    if stage.kind == "maps":

        def coders(recompute: bool) -> nn.Module:
            return _Coders(preset, stage.temporal_only, recompute)

        common["recomputes"] = True
        return plan_stage(title, coders, lambda n: n.loss(frames, micro_batch, size), frozen=0, **common)
    if stage.kind == "light":

        def light_loss(network: Any) -> Tensor:
            maps = network(torch.zeros(micro_batch * frames, 4, *latent), frames)
            return torch.stack([part.float().square().mean() for part in maps]).sum()

        return plan_stage(
            title,
            lambda _: LightDecoder(sizes.light_decoder),
            light_loss,
            frozen=image_vae + point_vae,
            **common,
        )

    def pictures_loss(network: Any) -> Tensor:
        moments = network.encode_moments(torch.zeros(2 * micro_batch * frames, 3, *size))
        return network.decode(moments.chunk(2, dim=1)[0], frames).float().square().mean()

    return plan_stage(
        title, lambda _: ImageVAE(sizes.image_vae, with_decoder=True), pictures_loss, frozen=encoder, **common
    )
