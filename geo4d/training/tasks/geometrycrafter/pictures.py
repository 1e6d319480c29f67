"""Stage 0 of the chain without published weights: a picture autoencoder in the role of Stable Video Diffusion's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geo4d.models.geometrycrafter.config import ImageEncoderConfig
from geo4d.models.geometrycrafter.vae import ImageVAE
from geo4d.training.loop import Task
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.maps import frames_seen, normalise_window
from geo4d.training.tasks.geometrycrafter.scores import mean_scores
from geo4d.training.tasks.geometrycrafter.windows import Windows
from geo4d.training.tasks.tiny.tasks import sample_noise

KL_WEIGHT = 1e-5
DISPARITY_WEIGHT = 4.0
"""Of the errors of disparity pictures, to 1 of colour: geometry has to come through this codec, texture has not."""

MEMORY = 0.99
"""Of the running mean square of the latents."""


class PictureCoding(Task):
    """Colour and disparity pictures through a small latent, each by itself.

    Half of the pictures of a batch are colour frames, half disparity pictures of the same frames, which weigh more. The
    loss is the squared error plus half the L1, and a weak pull of the posterior towards the normal distribution. The
    frame encoder beside it stays as it was drawn: it is there because the networks want a token for each frame.

    Args:
        image_encoder: with its config; written to the folder beside the autoencoder. None: the folder before has one.
        validation: windows that check the run.
        seen: of a window's frames those that pass through the network (``maps.frames_seen``). None: all.
    """

    latent_square: Tensor

    def __init__(
        self,
        image_vae: ImageVAE,
        image_encoder: tuple[nn.Module, ImageEncoderConfig] | None,
        folder: FolderPlan,
        validation: list[Windows] | None = None,
        seed: int = 0,
        seen: int | None = None,
    ) -> None:
        super().__init__()
        self.image_vae, self.folder, self.seed, self.seen = image_vae, folder, seed, seen
        self._image_encoder = [image_encoder]  # in a list: no part of the state
        self.validation = validation or []
        self.register_buffer("latent_square", torch.ones(()))

    def forward(self, batch: Windows) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of decoded pictures in [-1, 1] plus the weighted divergence of the latents, and both by name."""
        pictures = _pictures(batch, self.seen)
        count = len(pictures) // (2 * len(batch.names))
        mean, log_variance = self.image_vae.encode_moments(pictures).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        noise, _ = sample_noise(batch.samples, (2 * count, *mean.shape[1:]), self.seed, 0.0)
        noise = noise.to(mean.device).flatten(0, 1)
        latent = mean + (0.5 * log_variance).exp() * noise
        decoded = self.image_vae.decode(latent, count).float()
        if self.training:
            with torch.no_grad():
                self.latent_square.lerp_(mean.detach().square().mean(), 1 - MEMORY)
        error = decoded - pictures
        weight = torch.where(_is_disparity(len(error), count), DISPARITY_WEIGHT, 1.0).to(error)
        weight = (weight / weight.mean())[:, None, None, None]
        parts = {
            "squared": (weight * error.square()).mean(),
            "absolute": (weight * error.abs()).mean(),
            "divergence": 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(),
        }
        return parts["squared"] + 0.5 * parts["absolute"] + KL_WEIGHT * parts["divergence"], parts

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Mean squared errors of colour and of disparity on the validation windows, and one of them as a panel."""
        errors = []
        panels: dict[str, Tensor] = {}
        for window in self.validation:
            pictures = _pictures(window.to(self.latent_square.device))
            decoded = self.image_vae.decode(self.image_vae.encode(pictures), window.num_frames).float()
            squares = (decoded - pictures).square().flatten(1).mean(1)
            disparity = _is_disparity(len(squares), window.num_frames)
            kinds = {"squared_colour": squares[~disparity], "squared_disparity": squares[disparity]}
            errors.append({name: float(values.mean()) for name, values in kinds.items()})
            if not panels:
                rows = torch.cat(
                    [pictures[0], decoded[0], pictures[window.num_frames], decoded[window.num_frames]], 2
                )
                panels["pictures"] = (rows + 1) / 2
        return mean_scores(errors), panels

    def export(self, folder: Path) -> None:
        """Write coder and picture encoder; latents are scaled to a mean square of one."""
        factor = float(self.latent_square.clamp(min=1e-8) ** -0.5)
        config = replace(self.image_vae.config, scaling_factor=factor)
        (beside,) = self._image_encoder
        parts: dict[str, tuple[nn.Module, Any]] = {"vae": (self.image_vae, config)}
        self.folder.write(folder, parts if beside is None else parts | {"image_encoder": beside})


def _is_disparity(pictures: int, num_frames: int) -> Bool[Tensor, " N"]:
    """Which of the pictures of ``_pictures`` show disparity."""
    return torch.arange(pictures) // num_frames % 2 == 1


def _pictures(batch: Windows, seen: int | None = None) -> Float[Tensor, "N 3 H W"]:
    """Colour frames of a window, then its disparity pictures, window after window."""
    parts = []
    for rgb, depth, intrinsics, sample in zip(
        batch.rgb, batch.depth, batch.intrinsics, batch.samples.tolist(), strict=True
    ):
        frames = frames_seen(sample, batch.num_frames, seen)
        parts += [rgb[frames], normalise_window(depth, intrinsics).picture[frames]]
    return torch.cat(parts)
