"""Beyond the paper: a light decoder of point maps, and a student that takes one step where the network takes several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.diffusion.denoiser import denoise_from_v
from geo4d.diffusion.samplers import sample_ddim
from geo4d.diffusion.schedules import make_ddim_table, make_schedule
from geo4d.models.geo4d.config import VAEConfig
from geo4d.models.geo4d.options import Geo4DOptions
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE, sample_moments
from geo4d.models.light_decoder import LightDecoder, LightDecoderConfig, count_flops
from geo4d.training.data import Batch
from geo4d.training.full import Geo4DDiffusion, window_maps
from geo4d.training.loop import Task
from geo4d.training.tasks.geo4d.networks import FolderPlan
from geo4d.training.tasks.tiny.tasks import sample_noise

TRUTH = 0.5
"""Weight of the distance to the truth beside that to the teacher."""

SPREAD = 0.1
"""Weight of the distance between raw uncertainties."""

LATENT_NOISE = 0.1
"""Standard deviation, as a share of the latents' own, of the noise on those that the decoders see."""


def point_error(
    decoded: Float[Tensor, "N 4 H W"], wanted: Float[Tensor, "N 3 H W"], where: Bool[Tensor, "N H W"]
) -> Float[Tensor, ""]:
    """Mean over the chosen pixels of the L1 of three normalised coordinates; 0 without any."""
    error = torch.where(where, (decoded[:, :3] - wanted).abs().mean(1), 0.0)
    return error.sum() / where.sum().clamp(min=1)


class LightPointDecoding(Task):
    """L1 of a light decoder's point maps to its teacher's, everywhere, and to the truth, where that is known.

    Args:
        light: what is trained: three coordinates and the raw uncertainty.
        teacher: codec with the decoder to be replaced; it stays as it is.
        latent_scale: factor that brings the codec's latents to a mean square of about one.
        validation: windows that check the run.
    """

    def __init__(
        self,
        light: LightDecoder,
        teacher: VAE,
        plan: FolderPlan,
        *,
        latent_scale: float,
        seed: int = 0,
        validation: list[Batch] | None = None,
    ) -> None:
        super().__init__()
        self.light, self.seed, self.latent_scale = light, seed, latent_scale
        self._plan, self._teacher = [plan], [teacher]  # in lists: no part of the state
        self.validation = validation or []
        teacher.requires_grad_(False).eval()
        light.requires_grad_(True)

    @property
    def teacher(self) -> VAE:
        """The codec, on the device of what is trained."""
        return self._teacher[0].to(self.light.conv_in.weight.device)

    def _maps(self, batch: Batch) -> tuple[Float[Tensor, "N 3 H W"], Bool[Tensor, "N H W"], Tensor]:
        """True point maps, where they are known (surface or sky), and their latents."""
        with torch.autocast(batch.rgb.device.type, enabled=False):
            maps, valid = window_maps(batch)
            points = maps["point_map"].flatten(0, 1)
            known = (valid | torch.isinf(batch.depth)).flatten(0, 1)
            return points, known, sample_moments(self.teacher.moments(points), None)

    def _light(self, z: Float[Tensor, "N c h w"]) -> Float[Tensor, "N 4 H W"]:
        return torch.cat(self.light(z), dim=1).float()

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted distances, and each by name."""
        with torch.no_grad():
            points, known, z = self._maps(batch)
            shape = (batch.rgb.shape[1], *z.shape[1:])
            noise, _ = sample_noise(batch.samples, shape, self.seed, 0.0)
            z = z + noise.flatten(0, 1).to(z) * (LATENT_NOISE / self.latent_scale)
            wanted = self.teacher.decode_with_uncertainty(z).float()
        decoded = self._light(z)
        parts = {
            "teacher": point_error(decoded, wanted[:, :3], torch.ones_like(known)),
            "spread": (F.softplus(decoded[:, 3:]).log() - F.softplus(wanted[:, 3:]).log()).abs().mean(),
            "truth": point_error(decoded, points, known),
        }
        return parts["teacher"] + SPREAD * parts["spread"] + TRUTH * parts["truth"], parts

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """L1 of normalised points to the truth and its change between frames: this decoder's, and its teacher's."""
        rows: dict[str, list[float]] = {}
        panels: dict[str, Tensor] = {}
        for batch in self.validation:
            batch = batch.to(self.light.conv_in.weight.device)
            points, known, z = self._maps(batch)
            both = {"": self._light(z), "teacher_": self.teacher.decode_with_uncertainty(z).float()}
            for name, decoded in both.items():
                for key, value in point_scores(decoded[:, :3], points, known).items():
                    rows.setdefault(name + key, []).append(value)
            if not panels:
                shown = [points[:1], *(decoded[:1, :3] for decoded in both.values())]
                panels["point_map"] = torch.cat(shown, dim=3)[0] * 0.5 + 0.5
        return {name: sum(values) / len(values) for name, values in rows.items()}, panels

    def export(self, folder: Path) -> None:
        """Write the folder of the whole model with the light decoder in it."""
        self._plan[0].write(folder, {"light_decoder": self.light})


def point_scores(
    points: Float[Tensor, "T 3 H W"], truth: Float[Tensor, "T 3 H W"], known: Bool[Tensor, "T H W"]
) -> dict[str, float]:
    """Of one window: mean L1 of the coordinates (``points``), and of the change of their error from frame to frame."""
    error = points - truth
    both = known[1:] & known[:-1]
    steps = error.diff(dim=0).abs().mean(1)
    return {
        "points": float(error.abs().mean(1)[known].mean()) if bool(known.any()) else 0.0,
        "change": float(steps[both].mean()) if bool(both.any()) else 0.0,
    }


def share_of_flops(
    light: LightDecoderConfig, teacher: VAEConfig, size: tuple[int, int] = (448, 768)
) -> float:
    """Arithmetic of a light decoder as a share of its teacher's, on a frame of ``size`` pixels."""
    factor = teacher.downsampling

    def latent() -> Tensor:
        return torch.zeros(1, light.latent_channels, size[0] // factor, size[1] // factor)

    small = count_flops(lambda: LightDecoder(light), lambda network: network(latent()))
    return small / count_flops(
        lambda: VAE(teacher), lambda network: network.decode_with_uncertainty(latent())
    )


class Geo4DOneStep(Geo4DDiffusion):
    """Squared distance of the student's one DDIM step to where the teacher's steps lead from the same noise.

    Both run through the sampler of inference, the student with gradients, and the teacher decides the scale of the
    result. The colour latent is a draw of the posterior, the prompt is the full one, as at inference.

    Args:
        unet: the student; begins as its teacher.
        teacher: stays as it is.
        others: as for ``Geo4DDiffusion``.
    """

    def __init__(self, unet: UNet, teacher: UNet, *others: Any, **named: Any) -> None:
        super().__init__(unet, *others, **named)
        self._teacher = [teacher.requires_grad_(False).eval()]
        self.several = Geo4DOptions()
        self.one = replace(self.several, num_steps=1)
        self.steps = make_schedule(self.config.schedule)

    @property
    def teacher(self) -> UNet:
        """The network with several steps, on the student's device."""
        return self._teacher[0].to(self.alphas_cumprod.device)

    def sampled(
        self, unet: UNet, options: Geo4DOptions, noise: Tensor, colour: Tensor, batch: Batch
    ) -> Float[Tensor, "B C T h w"]:
        """The last latent, as inference makes it without guidance, by any network and number of steps."""
        context = torch.cat([self.text, self.image], dim=1).expand(len(noise), -1, -1)
        fps = (batch.fps.to(noise.device) + 1e-3).floor().clamp(min=1)

        def predict_v(x: Tensor, timestep: Tensor, condition: object) -> Tensor:
            return unet(torch.cat([x * self.active, colour], dim=1), timestep, condition, fps)

        table = make_ddim_table(
            self.steps, options.num_steps, options.spacing, options.eta, clean_end=options.clean_end
        )
        denoise = denoise_from_v(predict_v, [context], self.steps.alphas_cumprod)
        return sample_ddim(denoise, noise, table)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared distance over the trained modalities; no named parts."""
        with torch.no_grad():
            colour = self.encode(batch.rgb, batch.samples).float()
            channels = self.active.shape[1]
            shape = (channels, *colour.shape[2:])
            noise, _ = sample_noise(batch.samples, shape, self.seed, 0.0)
            noise = noise.to(colour)
            wanted = self.sampled(self.teacher, self.several, noise, colour, batch)
        answer = self.sampled(self.unet, self.one, noise, colour, batch)
        error = (answer - wanted).square() * self.active
        return error.mean() / self.active.mean(), {}

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores of decoded point maps: the student's, its teacher's (``teacher_``), those of its teacher if it took one
        step itself (``teacher_one_``), and those of the true latents (``codec_``).
        """
        rows: dict[str, list[float]] = {}
        panels: dict[str, Tensor] = {}
        for batch in self.validation:
            batch = batch.to(self.alphas_cumprod.device)
            latent, colour, _ = self._targets(batch)
            colour = colour.float()
            noise, _ = sample_noise(batch.samples, tuple(latent.shape[1:]), self.seed, 0.0)
            noise = noise.to(colour)
            maps, valid = window_maps(batch)
            points = maps["point_map"].flatten(0, 1)
            known = (valid | torch.isinf(batch.depth)).flatten(0, 1)
            found = {
                "": self.sampled(self.unet, self.one, noise, colour, batch),
                "teacher_": self.sampled(self.teacher, self.several, noise, colour, batch),
                "teacher_one_": self.sampled(self.teacher, self.one, noise, colour, batch),
                "codec_": latent,
            }
            decoded = {name: self._points(answer) for name, answer in found.items()}
            for name, answer in decoded.items():
                for key, value in point_scores(answer, points, known).items():
                    rows.setdefault(name + key, []).append(value)
            if not panels:
                shown = [points[:1], *(answer[:1] for answer in decoded.values())]
                panels["point_map"] = torch.cat(shown, dim=3)[0] * 0.5 + 0.5
        return {name: sum(values) / len(values) for name, values in rows.items()}, panels

    def _points(self, latent: Float[Tensor, "B C T h w"]) -> Float[Tensor, "N 3 H W"]:
        channels = self.config.vae.latent_channels
        first = self.config.latent_groups.index("point_map") * channels
        frames = latent[:, first : first + channels].transpose(1, 2).flatten(0, 1)
        return self.vae.decode(frames / self.config.latent_scale).float()
