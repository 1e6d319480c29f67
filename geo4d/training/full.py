"""Geo4D's training tasks: the diffusion network, and the point-map decoder with uncertainty.

Targets are the exact inverse of what ``geo4d.models.geo4d.modalities`` reads at inference. What the papers leave open is
decided here: point maps lie in the axes of the window's first camera; ray moments share the unit of the point map.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.diffusion.denoiser import v_training_pair
from geo4d.diffusion.schedules import make_schedule
from geo4d.geometry.cameras import unproject
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.geometry.poses import inverse
from geo4d.models.geo4d.conditioning import ContextConstants
from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.modalities import SKY_VALUE, normalise_disparity, normalise_points
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE, sample_moments
from geo4d.models.geo4d.widths import GROUPS
from geo4d.training.data import Batch
from geo4d.training.loop import Task
from geo4d.training.objectives import denoising_loss, laplace_likelihood
from geo4d.training.tasks.tiny.tasks import sample_noise

if TYPE_CHECKING:
    from geo4d.training.tasks.geo4d.networks import FolderPlan

BLOCKS = ("ResidualBlock", "TemporalBlock", "FeedForward", "SelfAttention")
"""Classes of blocks that sharded training gathers one by one. Not the cross-attention: the UNet computes the keys of all
of them at once, outside their own forward pass.
"""

TEXT_DROPOUT = 0.4
"""How often the prompt is replaced by the empty one: twice the published rate parameter of 0.2."""


def fill_unknown(depth: Float[Tensor, "*b H W"]) -> Float[Tensor, "*b H W"]:
    """Unknown depth (NaN) filled from its surroundings by repeated maxima over surfaces; sky is none.

    A map without a surface stays unknown. The maxima are those of 3x3 pixels that lie 1, 2, 4 ... apart, so that a few of
    them reach everywhere, and how many does not depend on the depth: a device need not be waited for.
    Source: Geo4D, supplement 6.1 (PointOdyssey's missing depth by max pooling).
    """
    filled = depth.flatten(0, -3)[:, None]
    apart = 1
    while apart < max(depth.shape[-2:]):
        surface = torch.where(torch.isfinite(filled), filled, -torch.inf)
        around = F.pad(surface, (apart, apart, apart, apart), value=-torch.inf)
        grown = F.max_pool2d(around, 3, 1, 0, apart)
        filled = torch.where(torch.isnan(filled) & torch.isfinite(grown), grown, filled)
        apart *= 2
    return filled[:, 0].reshape(depth.shape)


def window_maps(batch: Batch) -> tuple[dict[str, Float[Tensor, "B T 3 H W"]], Bool[Tensor, "B T H W"]]:
    """Normalised maps of every latent group, as pictures of three channels, and where there is a known surface.

    Holes are filled (``fill_unknown``), so that a codec sees a picture without edges that are none. A window that shows
    the sky alone has the sky's value everywhere, and the unit of the data as its scale.
    """
    depth = fill_unknown(batch.depth)
    valid = torch.isfinite(depth)
    relative = inverse(batch.c2w[:, :1]) @ batch.c2w
    camera = unproject(torch.where(valid, depth, 1.0), batch.intrinsics)
    points = (
        torch.einsum("btij,bthwj->bthwi", relative[..., :3, :3], camera) + relative[..., None, None, :3, 3]
    )
    size = (depth.shape[-2], depth.shape[-1])
    maps: dict[str, list[Tensor]] = {"point_map": [], "ray_direction": [], "ray_moment": [], "disparity": []}
    for window in range(depth.shape[0]):
        try:
            normalised, scale, _ = normalise_points(points[window], valid[window])
            disparity, _, _ = normalise_disparity(depth[window], valid[window])
        except ValueError:  # no surface; asking for it beforehand would wait for the device once more
            normalised = torch.full_like(points[window], SKY_VALUE)
            disparity, scale = -normalised[..., :1], torch.ones((), device=depth.device)
        poses = relative[window].clone()
        poses[:, :3, 3] /= scale
        rays = cameras_to_ray_map(batch.intrinsics[window], poses, size)
        maps["point_map"].append(normalised)
        maps["ray_direction"].append(rays[..., :3])
        maps["ray_moment"].append(rays[..., 3:])
        maps["disparity"].append(disparity.expand(-1, -1, -1, 3))
    stacked = {name: torch.stack(parts).movedim(-1, 2) for name, parts in maps.items()}
    return stacked, valid & torch.isfinite(batch.depth)


def known_share(depth: Float[Tensor, "B T H W"], downsampling: int) -> Float[Tensor, "B 1 T h w"]:
    """Share of the pixels of each latent cell whose depth, or that they are sky, is known."""
    known = (~torch.isnan(depth)).float()
    return F.avg_pool2d(known, downsampling)[:, None]


class Geo4DDiffusion(Task):
    """v-prediction of the latent of some modalities; channels of others are neither shown nor counted."""

    blocks = BLOCKS
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
        modalities: tuple[str, ...],
        *,
        seed: int = 0,
        checkpointing: bool = False,
        plan: "FolderPlan | None" = None,
        validation: list[Batch] | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.config, self.seed = unet, vae, config, seed
        self._plan = [plan]  # in a list: its networks are no part of the state
        self.validation = validation or []
        self.vae.requires_grad_(False)
        self.unet.gradient_checkpointing = checkpointing
        schedule = make_schedule(config.schedule)
        self.register_buffer("alphas_cumprod", schedule.alphas_cumprod.float(), persistent=False)
        self.register_buffer("scale", schedule.scale.float(), persistent=False)
        for name in ("text", "empty_text", "image"):
            self.register_buffer(name, getattr(constants, name).clone(), persistent=False)
        self.wanted = {group for modality in modalities for group in GROUPS[modality]}
        if absent := sorted(self.wanted - set(config.latent_groups)):
            raise ValueError(
                f"expected a network with channels of {', '.join(modalities)}, this one has none of {', '.join(absent)}"
            )
        active = torch.tensor([float(group in self.wanted) for group in config.latent_groups])
        active = active.repeat_interleave(config.vae.latent_channels)[None, :, None, None, None]
        self.register_buffer("active", active, persistent=False)

    @torch.no_grad()
    def encode(
        self, pictures: Float[Tensor, "B T 3 H W"], samples: Tensor | None = None, stream: int = 0
    ) -> Float[Tensor, "B C T h w"]:
        """A draw of the codec's posterior, as the released code takes it, for diffusion; its mean without samples.

        Args:
            samples: sample numbers, which determine the draw.
            stream: tells the groups of a window apart.
        """
        frames = pictures.flatten(0, 1)
        moments = torch.cat([self.vae.moments(frame) for frame in frames.split(4)])
        noise = None
        if samples is not None:
            shape = (pictures.shape[1], moments.shape[1] // 2, *moments.shape[2:])
            drawn, _ = sample_noise(samples, shape, self.seed + 7919 * (stream + 1), 0.0)
            noise = drawn.flatten(0, 1).to(moments.device)
        latent = sample_moments(moments, noise) * self.config.latent_scale
        return latent.unflatten(0, pictures.shape[:2]).transpose(1, 2)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of v over the trained modalities, where depth is known; no named parts."""
        latent, colour, weight = self._targets(batch)
        device = latent.device
        noise, timestep = sample_noise(batch.samples, tuple(latent.shape[1:]), self.seed, 0.0)
        noise, timestep = noise.to(device), timestep.to(device)
        noisy, target = v_training_pair(latent, noise, timestep, self.alphas_cumprod, self.scale)
        v = self._predict(noisy, colour, timestep, batch)
        weight = weight.expand_as(v)
        loss = denoising_loss(v.float(), target, weight) * weight.numel() / weight.sum().clamp(min=1)
        return loss, {}

    @torch.no_grad()
    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Latent of the maps, of the colours, and the weight of each latent number."""
        with torch.autocast(batch.rgb.device.type, enabled=False):
            maps, _ = window_maps(batch)
        colour = self.encode(batch.rgb, batch.samples)
        groups = self.config.latent_groups
        latent = torch.cat(
            [
                self.encode(maps[group], batch.samples, 1 + number)
                if group in self.wanted
                else torch.zeros_like(colour)
                for number, group in enumerate(groups)
            ],
            dim=1,
        ).float()
        known = known_share(batch.depth, self.config.vae.downsampling)
        # Rays are known wherever the camera is.
        shares = [torch.ones_like(known) if group in GROUPS["rays"] else known for group in groups]
        cells = torch.cat([s.expand(-1, self.config.vae.latent_channels, -1, -1, -1) for s in shares], dim=1)
        return latent, colour, cells * self.active

    def _predict(self, noisy: Tensor, colour: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        shown = torch.cat([noisy * self.active, colour.to(noisy)], dim=1)
        # Whole numbers, as at inference; times in single precision make 14.9999 of 15.
        fps = (batch.fps.to(noisy.device) + 1e-3).floor().clamp(min=1)
        v: Tensor = self.unet(shown, timestep.float(), self.context(batch), fps)
        return v

    def context(self, batch: Batch) -> Float[Tensor, "B L D"]:
        """Prompt or empty prompt, then the constant image tokens."""
        rows = []
        for sample in batch.samples.tolist():
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + sample) % (1 << 31))
            dropped = float(torch.rand((), generator=generator)) < TEXT_DROPOUT
            rows.append(torch.cat([self.empty_text if dropped else self.text, self.image], dim=1))
        return torch.cat(rows)

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Loss on the validation windows; of some a frame, the maps, and the same after one step from pure noise."""
        losses, panels = [], {}
        for number, batch in enumerate(self.validation):
            batch = batch.to(self.alphas_cumprod.device)
            losses.append(float(self(batch)[0]))
            if number < 4:
                panels[f"window_{number}"] = self._panel(batch)
        return ({"v": sum(losses) / len(losses)} if losses else {}), panels

    def _panel(self, batch: Batch) -> Float[Tensor, "3 H W"]:
        latent, colour, _ = self._targets(batch)
        noise, _ = sample_noise(batch.samples, tuple(latent.shape[1:]), self.seed, 0.0)
        last = torch.full((len(latent),), len(self.alphas_cumprod) - 1, device=latent.device)
        v = self._predict(noise.to(latent), colour, last, batch).float()
        shown = [batch.rgb[0, 0].float()]
        channels = self.config.vae.latent_channels
        for number, group in enumerate(self.config.latent_groups):
            if group in self.wanted:
                part = slice(number * channels, (number + 1) * channels)
                # At the last step of a schedule that ends without signal, v is minus the (rescaled) answer.
                for values in (latent, -v / self.scale[-1]):
                    frame = values[:1, part, 0] / self.config.latent_scale
                    shown.append(self.vae.decode(frame.to(batch.rgb)).float()[0])
        return torch.cat(shown, dim=2) * 0.5 + 0.5

    def export(self, folder: Path) -> None:
        """Write the folder of the whole model, this network in it.

        Raises:
            ValueError: the task was made without a plan for it.
        """
        _require_plan(self._plan[0]).write(folder, {"unet": self.unet})


def _require_plan(plan: "FolderPlan | None") -> "FolderPlan":
    if plan is None:
        raise ValueError("expected a plan of the folder to export to; give the task one")
    return plan


class Geo4DPointDecoding(Task):
    """Decoder and its uncertainty adaptor on point maps, by Laplace likelihood; encoder and latent stay as they are."""

    def __init__(
        self,
        vae: VAE,
        *,
        seed: int = 0,
        plan: "FolderPlan | None" = None,
        validation: list[Batch] | None = None,
    ) -> None:
        super().__init__()
        self.vae, self.seed = vae, seed
        self._plan = [plan]  # in a list: its networks are no part of the state
        self.validation = validation or []
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
            # In the sky the map keeps its reserved value, without a spread; what is unknown counts nothing.
            sky = torch.isinf(batch.depth).flatten(0, 1).float()
            reserved = ((raw[..., :3] - wanted).abs().mean(-1) * sky).mean()
        return loss + reserved, {"likelihood": loss, "reserved": reserved}

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Likelihood of the validation windows; of the first a frame, its point map, the decoded one and the spread."""
        losses, panels = [], {}
        for number, batch in enumerate(self.validation):
            batch = batch.to(next(self.vae.parameters()).device)
            losses.append(float(self(batch)[1]["likelihood"]))
            if number == 0:
                points = window_maps(batch)[0]["point_map"][0, :1]
                raw = self.vae.decode_with_uncertainty(sample_moments(self.vae.moments(points), None)).float()
                spread = F.softplus(raw[:, 3:]).expand(-1, 3, -1, -1) * 2 - 1
                shown = [batch.rgb[0, :1].float(), points, raw[:, :3], spread]
                panels["point_map"] = torch.cat(shown, dim=3)[0] * 0.5 + 0.5
        return ({"likelihood": sum(losses) / len(losses)} if losses else {}), panels

    def export(self, folder: Path) -> None:
        """Write the folder of the whole model, this decoder in it.

        Raises:
            ValueError: the task was made without a plan for it.
        """
        _require_plan(self._plan[0]).write(folder, {"point_vae": self.vae})
