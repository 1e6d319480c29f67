"""Training tasks at the released size: the diffusion network, and the point-map decoder with uncertainty.

Targets are the exact inverse of what ``geo4d.models.geo4d.modalities`` reads at inference. What the papers leave open is
decided here: point maps lie in the axes of the window's first camera; ray moments share the unit of the point map.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.diffusion.denoiser import v_training_pair
from geo4d.diffusion.schedules import make_schedule
from geo4d.errors import InputError
from geo4d.geometry.cameras import unproject
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.geometry.poses import inverse
from geo4d.models.geo4d.conditioning import ContextConstants, compute_constants
from geo4d.models.geo4d.config import Geo4DConfig, full
from geo4d.models.geo4d.modalities import normalise_disparity, normalise_points
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE, sample_moments
from geo4d.models.tiny.config import Modality
from geo4d.training.data import Batch
from geo4d.training.loop import Task
from geo4d.training.objectives import denoising_loss, laplace_likelihood
from geo4d.training.tasks.tiny.tasks import sample_noise

if TYPE_CHECKING:
    from geo4d.training.stages import Stage

TEXT_DROPOUT = 0.4
"""How often the prompt is replaced by the empty one: twice the published rate parameter of 0.2."""

GROUPS: dict[Modality, tuple[str, ...]] = {
    "points": ("point_map",),
    "rays": ("ray_direction", "ray_moment"),
    "disparity": ("disparity",),
}
"""Modality -> its groups of latent channels."""


def window_maps(batch: Batch) -> tuple[dict[str, Float[Tensor, "B T 3 H W"]], Bool[Tensor, "B T H W"]]:
    """Normalised maps of every latent group, as pictures of three channels, and where there is a surface."""
    valid = torch.isfinite(batch.depth)
    relative = inverse(batch.c2w[:, :1]) @ batch.c2w
    camera = unproject(torch.where(valid, batch.depth, 1.0), batch.intrinsics)
    points = (
        torch.einsum("btij,bthwj->bthwi", relative[..., :3, :3], camera) + relative[..., None, None, :3, 3]
    )
    size = (batch.depth.shape[-2], batch.depth.shape[-1])
    maps: dict[str, list[Tensor]] = {"point_map": [], "ray_direction": [], "ray_moment": [], "disparity": []}
    for window in range(batch.depth.shape[0]):
        normalised, scale, _ = normalise_points(points[window], valid[window])
        disparity, _, _ = normalise_disparity(batch.depth[window], valid[window])
        poses = relative[window].clone()
        poses[:, :3, 3] /= scale
        rays = cameras_to_ray_map(batch.intrinsics[window], poses, size)
        maps["point_map"].append(normalised)
        maps["ray_direction"].append(rays[..., :3])
        maps["ray_moment"].append(rays[..., 3:])
        maps["disparity"].append(disparity.expand(-1, -1, -1, 3))
    return {name: torch.stack(parts).movedim(-1, 2) for name, parts in maps.items()}, valid


class Geo4DDiffusion(Task):
    """v-prediction of the latent of some modalities; the others are neither shown nor counted."""

    alphas_cumprod: Tensor
    scale: Tensor
    text: Tensor
    empty_text: Tensor
    image: Tensor
    active: Tensor

    def __init__(
        self,
        unet: UNet,
        vae: VAE,
        constants: ContextConstants,
        config: Geo4DConfig,
        modalities: tuple[Modality, ...],
        *,
        seed: int = 0,
        checkpointing: bool = False,
        fps: float = 24.0,
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.config, self.seed, self.fps = unet, vae, config, seed, fps
        self.vae.requires_grad_(False)
        self.unet.gradient_checkpointing = checkpointing
        schedule = make_schedule(config.schedule)
        self.register_buffer("alphas_cumprod", schedule.alphas_cumprod.float(), persistent=False)
        self.register_buffer("scale", schedule.scale.float(), persistent=False)
        for name in ("text", "empty_text", "image"):
            self.register_buffer(name, getattr(constants, name).clone(), persistent=False)
        self.wanted = {group for modality in modalities for group in GROUPS[modality]}
        active = torch.tensor([float(group in self.wanted) for group in config.latent_groups])
        active = active.repeat_interleave(config.vae.latent_channels)[None, :, None, None, None]
        self.register_buffer("active", active, persistent=False)

    @torch.no_grad()
    def encode(self, pictures: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B C T h w"]:
        """Mean of the codec's posterior, scaled for diffusion."""
        frames = pictures.flatten(0, 1)
        moments = torch.cat([self.vae.moments(frame) for frame in frames.split(4)])
        latent = sample_moments(moments, None) * self.config.latent_scale
        return rearrange(latent, "(b t) c h w -> b c t h w", b=pictures.shape[0])

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of v over the trained modalities; no named parts."""
        device = batch.rgb.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            maps, _ = window_maps(batch)
        with torch.no_grad():
            colour = self.encode(batch.rgb)
            groups = [
                self.encode(maps[group]) if group in self.wanted else torch.zeros_like(colour)
                for group in self.config.latent_groups
            ]
            latent = torch.cat(groups, dim=1).float()
        noise, timestep = sample_noise(batch.samples, tuple(latent.shape[1:]), self.seed, 0.0)
        noise, timestep = noise.to(device), timestep.to(device)
        noisy, target = v_training_pair(latent, noise, timestep, self.alphas_cumprod, self.scale)
        noisy = noisy * self.active
        v = self.unet(
            torch.cat([noisy, colour.to(noisy)], dim=1),
            timestep.float(),
            self.context(batch),
            self._fps(batch),
        )
        active = self.active.expand_as(v)
        loss = denoising_loss(v.float(), target, active) * active.numel() / active.sum()
        return loss, {}

    def context(self, batch: Batch) -> Float[Tensor, "B L D"]:
        """Prompt or empty prompt, then the constant image tokens."""
        rows = []
        for sample in batch.samples.tolist():
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + sample) % (1 << 31))
            dropped = float(torch.rand((), generator=generator)) < TEXT_DROPOUT
            rows.append(torch.cat([self.empty_text if dropped else self.text, self.image], dim=1))
        return torch.cat(rows)

    def _fps(self, batch: Batch) -> Tensor:
        return torch.full((batch.rgb.shape[0],), self.fps, device=batch.rgb.device)

    def export(self, folder: Path) -> None:
        """Write ``unet.safetensors``."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().contiguous().cpu() for name, value in self.unet.state_dict().items()}
        save_file(tensors, str(folder / "unet.safetensors"))


class Geo4DPointDecoding(Task):
    """Decoder and its uncertainty adaptor on point maps, by Laplace likelihood; encoder and latent stay as they are."""

    def __init__(self, vae: VAE, *, seed: int = 0) -> None:
        super().__init__()
        self.vae, self.seed = vae, seed
        self.vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.vae.decoder_adaptor.requires_grad_(True)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log likelihood (Laplace) of the points on surfaces, and named parts of it."""
        device = batch.rgb.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            maps, valid = window_maps(batch)
        points = maps["point_map"].flatten(0, 1)
        with torch.no_grad():
            z = sample_moments(self.vae.moments(points), None)
        raw = self.vae.decode_with_uncertainty(z)
        with torch.autocast(device.type, enabled=False):
            raw = raw.float().movedim(1, -1)
            wanted = points.movedim(1, -1)
            sigma = F.softplus(raw[..., 3]).clamp(min=1e-4)
            likelihood = laplace_likelihood(raw[..., :3], wanted, sigma)
            surface = valid.flatten(0, 1).float()
            loss = (likelihood * surface).sum() / surface.sum().clamp(min=1)
            # Where there is no surface the map keeps its reserved value, without a spread.
            reserved = ((raw[..., :3] - wanted).abs().mean(-1) * (1 - surface)).mean()
        return loss + reserved, {"likelihood": loss, "reserved": reserved}

    def export(self, folder: Path) -> None:
        """Write ``point_vae.safetensors``."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().contiguous().cpu() for name, value in self.vae.state_dict().items()}
        save_file(tensors, str(folder / "point_vae.safetensors"))


def make_full_task(stage: "Stage", start: Path | None, config: Geo4DConfig | None = None) -> Task:
    """The task of a full-size stage.

    Args:
        start: a DynamiCrafter checkpoint, or the folder of an earlier full-size stage's weights beside one
            (``unet.safetensors`` in a folder that also holds the checkpoint as ``start.ckpt``).
    Raises:
        InputError: no start; training from nothing is not what this recipe is.
        CheckpointError: the start does not fit.
    """
    if start is None:
        raise InputError(
            "full-size stages start from DynamiCrafter's weights (and go on from each other); name them with --start"
        )
    from geo4d.models.geo4d.weights import make_parts
    from geo4d.models.store.reading import read_safetensors, read_state
    from geo4d.training.dynamicrafter import from_dynamicrafter

    config = config or full()
    base = start / "start.ckpt" if start.is_dir() else start
    parts = from_dynamicrafter(read_state(base), config, str(base))
    modules: dict[str, Any] = make_parts(config)
    vae = VAE(config.vae)  # with fresh adaptors, which the start does not have
    vae.load_state_dict(parts["vae"], strict=False)
    if stage.kind == "decoder":
        return Geo4DPointDecoding(vae, seed=stage.loop.seed)
    for name in ("unet", "text", "image", "resampler"):
        modules[name].load_state_dict(parts[name], assign=True)
    later = start / "unet.safetensors"
    if start.is_dir() and later.exists():
        modules["unet"].load_state_dict(read_safetensors(later), assign=True)
    constants = compute_constants(modules["text"], modules["image"], modules["resampler"])
    return Geo4DDiffusion(
        modules["unet"].requires_grad_(True),
        vae,
        constants,
        config,
        stage.diffusion.modalities,
        seed=stage.loop.seed,
        checkpointing=stage.loop.checkpointing,
    )
