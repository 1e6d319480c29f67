"""The light decoder: distilled from the decoder of a point-map VAE, with the truth beside it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.models.geometrycrafter.config import PointMapVAEConfig
from geo4d.models.geometrycrafter.decode import DecodedMaps
from geo4d.models.geometrycrafter.vae import PointMapDecoder, PointMapVAE
from geo4d.models.light_decoder import LightDecoder, LightDecoderConfig, count_flops
from geo4d.training.loop import Task
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.losses import LightWeights, light_losses
from geo4d.training.tasks.geometrycrafter.networks import FrozenNetworks
from geo4d.training.tasks.geometrycrafter.point_maps import depth_panel, normalised, to_maps
from geo4d.training.tasks.geometrycrafter.scores import mean_scores, window_scores
from geo4d.training.tasks.geometrycrafter.windows import Windows
from geo4d.training.tasks.tiny.tasks import sample_noise


@dataclass(frozen=True)
class LatentNoise:
    """Noise on the latents that both decoders see: at inference they come from a network that is not exact.

    Attributes:
        most: largest standard deviation, as a share of the latents' own; drawn evenly from 0 on for every window.
        seed: of all draws.
    """

    most: float = 0.1
    seed: int = 0


class LightDecoding(Task):
    """Distance of a small decoder to its teacher and to the truth, on latents of true maps.

    Args:
        light: what is trained.
        vae: the teacher; it stays as it is.
        validation: windows that check the run.
    """

    def __init__(
        self,
        light: LightDecoder,
        vae: PointMapVAE,
        frozen: FrozenNetworks,
        folder: FolderPlan,
        *,
        weights: LightWeights | None = None,
        noise: LatentNoise | None = None,
        validation: list[Windows] | None = None,
    ) -> None:
        super().__init__()
        self.light, self.folder = light, folder
        self.frozen = FrozenNetworks(frozen.image_vae, None, vae)  # not a module: no part of the saved state
        self.weights, self.noise = weights or LightWeights(), noise or LatentNoise()
        self.validation = validation or []
        light.requires_grad_(True)

    def _encode(self, maps: Float[Tensor, "N 4 H W"]) -> Float[Tensor, "N c h w"]:
        vae = self.frozen.point_map_vae
        assert vae is not None
        return vae.encode(maps, self.frozen.image_vae).float()

    def forward(self, batch: Windows) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss against teacher and truth, and its named parts."""
        device, frames = batch.rgb.device, batch.num_frames
        frozen = self.frozen.on(device)
        vae = frozen.point_map_vae
        assert vae is not None
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            windows = normalised(batch)
            latent = self._encode(torch.cat([window.encoder_input for window in windows]))
            latent = latent + self._disturbance(batch, latent)
            teacher = to_maps(vae.decode(latent, frames))
            valid = torch.cat([window.valid for window in windows])
            truth = torch.cat([window.encoder_input for window in windows])
        decoded = self._decode(latent, frames)
        with torch.autocast(device.type, enabled=False):
            return light_losses(decoded, teacher, truth[:, 0], truth[:, 1], valid, frames, self.weights)

    def _decode(self, latent: Float[Tensor, "N c h w"], frames: int) -> DecodedMaps:
        theta, log_depth, mask = self.light(latent, frames)
        return to_maps((theta, log_depth, mask))

    def _disturbance(self, batch: Windows, latent: Float[Tensor, "N c h w"]) -> Float[Tensor, "N c h w"]:
        """Noise of each window, from (seed, sample) alone."""
        shape = (batch.num_frames, *latent.shape[1:])
        noise, _ = sample_noise(batch.samples, shape, self.noise.seed, 0.0)
        generator = torch.Generator()
        shares = []
        for sample in batch.samples.tolist():
            generator.manual_seed((self.noise.seed * 1_000_003 + sample) % (1 << 31))
            shares.append(float(torch.rand((), generator=generator)) * self.noise.most)
        own = 1 / self.frozen.image_vae.config.scaling_factor
        drawn = noise.to(latent) * torch.tensor(shares, device=latent.device)[:, None, None, None, None] * own
        return drawn.flatten(0, 1)

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Round trip of true maps through the light decoder, and through its teacher (``teacher_``)."""
        rows = []
        panels: dict[str, Tensor] = {}
        device = next(self.light.parameters()).device
        vae = self.frozen.on(device).point_map_vae
        assert vae is not None
        for window in self.validation:
            window = window.to(device)
            (truth,) = normalised(window)
            latent = self._encode(truth.encoder_input)
            row = {}
            both = {"": self._decode(latent, window.num_frames)}
            both["teacher_"] = to_maps(vae.decode(latent, window.num_frames))
            for name, maps in both.items():
                scores = window_scores(maps.depth, window.depth[0])
                scores["theta"] = float((maps.theta / truth.maps.theta - 1).abs()[truth.valid].mean())
                scores["mask"] = float((maps.valid == truth.valid).float().mean())
                row.update({f"{name}{key}": value for key, value in scores.items()})
            rows.append(row)
            if not panels:
                shown = [truth.maps.log_depth[0], *(maps.log_depth[0] for maps in both.values())]
                panels["round_trip"] = depth_panel(shown, truth.valid[0])
        return mean_scores(rows), panels

    def export(self, folder: Path) -> None:
        """Write the light decoder into a model folder, beside its teacher."""
        self.folder.write(folder, {"light_decoder": (self.light, self.light.config)})


def share_of_flops(
    light: LightDecoderConfig, teacher: PointMapVAEConfig, size: tuple[int, int] = (448, 768), frames: int = 8
) -> float:
    """Arithmetic of a light decoder as a share of its teacher's, on ``frames`` frames of ``size`` pixels."""

    reduction = teacher.reduction

    def call(decoder: torch.nn.Module) -> object:
        latent = torch.zeros(frames, light.latent_channels, size[0] // reduction, size[1] // reduction)
        return decoder(latent, frames)

    return count_flops(lambda: LightDecoder(light), call) / count_flops(
        lambda: PointMapDecoder(teacher), call
    )
