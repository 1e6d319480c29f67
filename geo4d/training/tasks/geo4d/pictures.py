"""Stage 0 of the chain without published weights: a picture codec in the role of DynamiCrafter's."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.models.geo4d.vae import VAE, sample_moments
from geo4d.training.data import Batch
from geo4d.training.full import window_maps
from geo4d.training.loop import Task
from geo4d.training.tasks.geo4d.networks import FolderPlan
from geo4d.training.tasks.tiny.tasks import sample_noise

KL_WEIGHT = 1e-5
GEOMETRY = ("point_map", "disparity")
"""Maps from which depth is read."""

GEOMETRY_WEIGHT = 4.0
"""Of their errors, to 1 of colour and rays: depth has to come through, texture has not, and rays are smooth."""

MEMORY = 0.95
"""Of the running mean square of the latents."""


class PictureCoding(Task):
    """Colour frames and the maps of every modality through one small latent, each as a picture by itself.

    The loss is the squared error plus half the L1, those of point maps and disparity weighing more, and a weak pull of
    the posterior towards the normal distribution.
    """

    latent_square: Tensor

    def __init__(
        self, vae: VAE, plan: FolderPlan, validation: list[Batch] | None = None, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.vae, self.seed = vae, seed
        self._plan = [plan]  # in a list: its networks are no part of the state
        self.validation = validation or []
        self.vae.requires_grad_(True)
        self.vae.encoder_adaptor.requires_grad_(False)
        self.vae.decoder_adaptor.requires_grad_(False)
        self.register_buffer("latent_square", torch.ones(()))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of the decoded pictures plus the weighted divergence of the latents, and both by name."""
        pictures, names = _pictures(batch)
        moments = self.vae.moments(pictures).float()
        mean, log_variance = moments.chunk(2, dim=1)
        shape = (pictures.shape[0] // batch.samples.numel(), *mean.shape[1:])
        noise, _ = sample_noise(batch.samples, shape, self.seed, 0.0)
        noise = noise.transpose(0, 1).flatten(0, 1).to(mean.device)
        error = self.vae.decode(sample_moments(moments, noise)).float() - pictures
        if self.training:
            with torch.no_grad():
                self.latent_square.lerp_(mean.detach().square().mean(), 1 - MEMORY)
        log_variance = log_variance.clamp(-30, 20)
        weights = torch.tensor([GEOMETRY_WEIGHT if name in GEOMETRY else 1.0 for name in names])
        weight = (weights / weights.mean()).repeat_interleave(len(pictures) // len(names)).to(error)
        weight = weight[:, None, None, None]
        parts = {
            "squared": (weight * error.square()).mean(),
            "absolute": (weight * error.abs()).mean(),
            "divergence": 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(),
        }
        return parts["squared"] + 0.5 * parts["absolute"] + KL_WEIGHT * parts["divergence"], parts

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Mean squared errors of every kind of picture over the validation windows, and some beside their decoding."""
        errors: list[dict[str, float]] = []
        panels = {}
        for number, batch in enumerate(self.validation):
            pictures, names = _pictures(batch.to(self.latent_square.device))
            decoded = self.vae.decode(self.vae.moments(pictures).float().chunk(2, dim=1)[0]).float()
            squares = (decoded - pictures).square().flatten(1).mean(1).unflatten(0, (len(names), -1)).mean(1)
            errors.append(
                {f"squared_{name}": float(value) for name, value in zip(names, squares, strict=True)}
            )
            if number == 0:
                chosen = torch.linspace(0, len(pictures) - 1, 5).long().tolist()
                rows = [torch.cat([pictures[i], decoded[i]], 1) for i in chosen]
                panels["pictures"] = (torch.cat(rows, 2) + 1) / 2
        return {
            name: sum(row[name] for row in errors) / len(errors) for name in (errors[0] if errors else ())
        }, panels

    def export(self, folder: Path) -> None:
        """Write the folder; both codecs are this one, and latents are scaled to a mean square of one."""
        scale = float(self.latent_square.clamp(min=1e-8) ** -0.5)
        self._plan[0].write(folder, {"vae": self.vae, "point_vae": self.vae}, scale)


def _pictures(batch: Batch) -> tuple[Float[Tensor, "N 3 H W"], tuple[str, ...]]:
    """All colour frames, then all maps, group after group, windows within a group one after the other; and the groups."""
    with torch.no_grad(), torch.autocast(batch.rgb.device.type, enabled=False):
        maps, _ = window_maps(batch)
    groups = torch.stack([batch.rgb, *maps.values()])
    return groups.transpose(1, 2).flatten(0, 2), ("colour", *maps)
