"""A student that answers in one step where the generative network takes several."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, UNetConfig
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.training.tasks.geometrycrafter.denoising import Denoising, encode_conditions
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.networks import FrozenNetworks
from geo4d.training.tasks.geometrycrafter.windows import Windows

TEACHER_STEPS = GeometryCrafterConfig().num_steps
"""Steps of the teacher: those of inference."""


class OneStep(Denoising):
    """Squared distance of the student's one step to where the teacher's steps lead from the same noise.

    Both run through the sampler of inference, the student with gradients.

    Args:
        unet: the student; begins as its teacher.
        teacher: stays as it is.
        others: keyword arguments of ``Denoising``.
    """

    def __init__(
        self,
        unet: FrameTokenUNet,
        unet_config: UNetConfig,
        teacher: FrameTokenUNet,
        frozen: FrozenNetworks,
        folder: FolderPlan,
        **others: Any,
    ) -> None:
        super().__init__(unet, unet_config, frozen, "diff", folder, **others)
        self.several = self.sampling
        self.sampling = replace(self.sampling, num_steps=1)
        self._teacher = [teacher.requires_grad_(False).eval()]  # in a list: no part of the state

    @property
    def teacher(self) -> FrameTokenUNet:
        """The network with several steps, on the student's device."""
        teacher = self._teacher[0]
        device = self.unet.conv_in.weight.device
        if teacher.conv_in.weight.device != device:
            torch.nn.Module.to(teacher, device)
        return teacher

    def forward(self, batch: Windows) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared distance of the latents; no named parts."""
        device = batch.rgb.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            conditions = encode_conditions(batch, self.frozen.on(device))
        latent = conditions[0].prior_latents
        noise, _ = self._draw(batch.samples, tuple(latent.shape))
        errors = []
        for one, start in zip(conditions, noise.to(device), strict=True):
            with torch.no_grad():
                wanted = self.sample_from(self.teacher, one, start, self.several)
            answer = self.sample_from(self.unet, one, start, self.sampling)
            errors.append((answer.float() - wanted.float()).square().mean())
        return torch.stack(errors).mean(), {}

    @torch.no_grad()
    def answers(self, window: Windows) -> dict[str, Float[Tensor, "T c h w"]]:
        """Latents of one window: the student's, its teacher's, and its teacher's if it took one step itself."""
        (conditioning,) = encode_conditions(window, self.frozen.on(window.rgb.device))
        noise = self.first_noise(window, conditioning)
        ways = {
            "": (self.unet, self.sampling),
            "teacher_": (self.teacher, self.several),
            "teacher_one_": (self.teacher, self.sampling),
        }
        return {
            name: self.sample_from(unet, conditioning, noise, config) for name, (unet, config) in ways.items()
        }
