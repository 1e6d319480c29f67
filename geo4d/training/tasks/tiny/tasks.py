"""What the tiny model learns: to denoise latents, and disparity from pictures; and how it is judged."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.diffusion.denoiser import noised, v_target
from geo4d.models.tiny.codec import LatentCodec
from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import MODALITIES, Modality
from geo4d.models.tiny.depth import DepthMaps
from geo4d.models.tiny.modalities import NormalisedMaps, normalise, restore_disparity
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.weights import save_model
from geo4d.models.trained import write_trained
from geo4d.training.data import Batch, ClipSource
from geo4d.training.loop import Task
from geo4d.training.objectives import (
    denoising_loss,
    draw_timesteps,
    gradient_loss,
    laplace_likelihood,
    scale_shift_invariant_loss,
)
from geo4d.training.scores import camera_scores, depth_scores
from geo4d.training.sources import as_float
from geo4d.training.tasks.tiny.batches import EvidenceDropout, batch_evidence, grey, halved_batch


def sample_noise(
    samples: Tensor, shape: tuple[int, ...], seed: int, terminal_share: float
) -> tuple[Tensor, Tensor]:
    """Noise and timestep of each sample, drawn from (seed, sample) alone."""
    noise, timesteps = [], []
    for sample in samples.tolist():
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((seed, 11, sample)).generate_state(1)[0])
        )
        timesteps.append(draw_timesteps(1, terminal_share, generator))
        noise.append(torch.randn(shape, generator=generator))
    return torch.stack(noise), torch.cat(timesteps)


@dataclass(frozen=True)
class DiffusionConfig:
    """What the network's loss is made of.

    Attributes:
        terminal_share: share of samples at pure noise, where the answer is taken in one step and judged in pixels.
        modalities: which parts of the latent are trained; the others count nothing.
        disparity_weight, point_weight, ray_weight: of each modality's latent.
        invariant_weight: of the scale and shift invariant disparity loss.
        gradient_weight: of the disparity gradient loss.
        dropout: of the evidence.
        seed: of noise and dropout.
    """

    terminal_share: float = 0.7
    modalities: tuple[Modality, ...] = MODALITIES
    disparity_weight: float = 1.0
    point_weight: float = 1.0
    ray_weight: float = 3.0
    invariant_weight: float = 0.5
    gradient_weight: float = 0.5
    dropout: EvidenceDropout = field(default_factory=EvidenceDropout)
    seed: int = 0


class TinyDiffusion(Task):
    """v-prediction of the latent, and the one-step answer in pixels."""

    weight: Tensor
    facts: Mapping[str, Any] | None = None

    def __init__(
        self, model: TinyModel, config: DiffusionConfig, validation: list[Batch] | None = None
    ) -> None:
        super().__init__()
        self.model = model.channels_last()
        self.config = config
        self.validation = validation or []
        self.model.depth.requires_grad_(False)
        sizes = model.config
        weight = torch.zeros(sizes.latent_channels)
        # Loss in the unit of the maps, but no channel may vanish: a latent of unit spread times its true spread.
        for modality, factor in (
            ("disparity", config.disparity_weight),
            ("points", config.point_weight),
            ("rays", config.ray_weight),
        ):
            part = sizes.channels(modality)  # type: ignore[arg-type]
            if modality in config.modalities:
                spread = model.codec.latent_std[part]
                weight[part] = (
                    factor * (spread / spread.max()).clamp(min=0.1) if modality != "rays" else factor
                )
        self.register_buffer("weight", weight[:, None, None], persistent=False)
        self.last_timestep = len(model.alphas_cumprod) - 1

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared error of v, and its share in each modality."""
        config, device = self.config, batch.rgb.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            maps, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
            latent = self.model.codec.encode(maps)
            evidence = batch_evidence(batch, config.dropout, config.seed)
            noise, timestep = sample_noise(
                batch.samples, tuple(latent.shape[1:]), config.seed, config.terminal_share
            )
            noise, timestep = noise.to(device), timestep.to(device)
            noisy = noised(latent, noise, timestep, self.model.alphas_cumprod)
            target = v_target(latent, noise, timestep, self.model.alphas_cumprod)
        condition = self.model.condition(batch.rgb, evidence)
        v = self.model.predict_v(noisy, timestep, condition, batch.frames)
        with torch.autocast(device.type, enabled=False):
            return self._loss(v.float(), target, latent, maps, timestep == self.last_timestep)

    def _loss(
        self, v: Tensor, target: Tensor, latent: Tensor, maps: NormalisedMaps, terminal: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, parts = self.config, {}
        share = terminal.float().mean()
        loss = v.sum() * 0.0
        inner = ~terminal
        if inner.any():
            parts["denoising"] = denoising_loss(v[inner], target[inner], self.weight)
            loss = loss + (1 - share) * parts["denoising"]
        if terminal.any():
            x0, truth = -v[terminal], latent[terminal]
            parts["latent"] = ((x0 - truth).abs() * self.weight).mean()
            total = parts["latent"]
            if "disparity" in config.modalities:
                decoded = self.model.codec.decode(x0).disparity
                wanted = maps.disparity[terminal]
                parts["invariant"] = scale_shift_invariant_loss(decoded.flatten(1), wanted.flatten(1))
                parts["gradient"] = gradient_loss(decoded, wanted)
                total = total + config.invariant_weight * parts["invariant"]
                total = total + config.gradient_weight * parts["gradient"]
            loss = loss + share * total
        return loss, parts

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores and panels of the validation clips by the diffusion network."""
        return evaluate_model(self.model, self.validation)

    def export(self, folder: Path) -> None:
        """Write ``model.safetensors``, and the record of the training where the stage has one."""
        save_model(self.model, folder / "model.safetensors")
        if self.facts is not None:
            write_trained(folder, self.facts)


class TinyDepth(Task):
    """The depth network, its encoder included unless its parameters ask for no gradient.

    Args:
        model: whose diffusion network stays as it is.
        validation: windows of full size.
        dropout: of the evidence.
        seed: of the dropout.
    """

    facts: Mapping[str, Any] | None = None

    def __init__(
        self,
        model: TinyModel,
        validation: list[Batch] | None = None,
        dropout: EvidenceDropout | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model.channels_last()
        self.model.network.requires_grad_(False)
        self.validation = validation or []
        self.dropout = dropout or EvidenceDropout()
        self.seed = seed

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """``depth_loss`` and its parts by name."""
        with torch.no_grad(), torch.autocast(batch.rgb.device.type, enabled=False):
            truth, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
            evidence = batch_evidence(halved_batch(batch), self.dropout, self.seed)
        found = self.model.depth_maps(batch.rgb, evidence, batch.frames)
        with torch.autocast(batch.rgb.device.type, enabled=False):
            return depth_loss(found, truth.disparity, ~torch.isfinite(batch.depth))

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """AbsRel and delta of validation windows with evidence, from pictures alone, and of the template; pictures."""
        scores: dict[str, list[Tensor]] = {}
        panels: dict[str, Tensor] = {}
        for number, batch in enumerate(self.validation):
            size = (batch.rgb.shape[-2] // 2, batch.rgb.shape[-1] // 2)
            with torch.autocast(batch.rgb.device.type, enabled=False):
                given = batch_evidence(halved_batch(batch))
                truth, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
            nothing = no_evidence(batch.rgb.shape[0], batch.rgb.shape[1], size, batch.rgb)
            mean = self.model.codec.template[None].expand(batch.rgb.shape[0], batch.rgb.shape[1], -1, -1)
            answers = {
                "": self.model.depth_maps(batch.rgb, given, batch.frames).disparity[:, :, 0],
                "_image_only": self.model.depth_maps(batch.rgb, nothing, batch.frames).disparity[:, :, 0],
                "_template": torch.nn.functional.interpolate(mean, batch.depth.shape[-2:], mode="bilinear"),
            }
            for name, disparity in answers.items():
                with torch.autocast(batch.rgb.device.type, enabled=False):
                    relative, close = depth_scores(disparity.float(), batch.depth)
                scores.setdefault(f"abs_rel{name}", []).append(relative)
                scores.setdefault(f"delta{name}", []).append(close)
            if number < 4:
                maps = (truth.disparity[0, 0], *(answers[name][0, :1] for name in ("", "_image_only")))
                rows = [batch.rgb[0, 0].float() * 0.5 + 0.5, *(grey(one) for one in maps)]
                panels[f"window_{number}"] = torch.cat(rows, dim=2)
        return {name: float(torch.cat(parts).mean()) for name, parts in scores.items()}, panels

    def export(self, folder: Path) -> None:
        """Write ``model.safetensors``, and the record of the training where the stage has one."""
        save_model(self.model, folder / "model.safetensors")
        if self.facts is not None:
            write_trained(folder, self.facts)


LOG_FLOOR = 0.05
"""Added to disparities in [0, 1.2] before their logarithms are compared."""
STILL = 0.05
"""Change of the logarithm from frame to frame below which a pixel of the truth counts as steady."""


def depth_loss(
    found: DepthMaps, truth: Float[Tensor, "B T 1 H W"], sky: Bool[Tensor, "B T H W"]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Laplace likelihood of disparity, its logarithm, steps in the picture and in time, the sky; the sum and its parts.

    The sky has a disparity too (0): it keeps its place in the picture, without a spread. Steps in time count where the
    truth hardly changes (Chen et al., "Video Depth Anything", section 3.2).
    """
    surface = (~sky).float()
    count = surface.sum().clamp(min=1)
    likelihood = laplace_likelihood(
        found.disparity.movedim(2, -1), truth.movedim(2, -1), found.disparity_sigma[:, :, 0]
    )
    own, wanted = ((restore_disparity(maps[:, :, 0]) + LOG_FLOOR).log() for maps in (found.disparity, truth))
    change = wanted.diff(dim=1)
    steady = (change.abs() < STILL).float() * surface[:, 1:] * surface[:, :-1]
    parts = {
        "disparity": (likelihood * surface).sum() / count,
        "logarithm": ((own - wanted).abs() * surface).sum() / count,
        "sky_disparity": ((found.disparity - truth).abs() * sky[:, :, None]).mean(),
        "sky": torch.nn.functional.binary_cross_entropy_with_logits(found.sky_logit[:, :, 0], sky.float()),
        "gradient": gradient_loss(found.disparity, truth),
        "logarithm_gradient": 0.5 * gradient_loss(own, wanted),
        "steady": ((own.diff(dim=1) - change).abs() * steady).sum() / steady.sum().clamp(min=1),
    }
    return torch.stack(list(parts.values())).sum(), parts


def evaluate_model(
    model: TinyModel, batches: list[Batch], *, num_steps: int = 1
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Scores of the linearly decoded maps and of the template on windows, with and without evidence, and a picture."""
    scores: dict[str, list[Tensor]] = {}
    panels: dict[str, Tensor] = {}

    def add(name: str, values: Tensor) -> None:
        scores.setdefault(name, []).append(values)

    for number, batch in enumerate(batches):
        size = (batch.rgb.shape[-2], batch.rgb.shape[-1])
        with torch.autocast(batch.rgb.device.type, enabled=False):
            maps, scales = normalise(batch.depth, batch.intrinsics, batch.c2w)
            shape = tuple(model.codec.encode(maps).shape[1:])
        noise, _ = sample_noise(batch.samples, shape, 1, 1.0)
        everything = batch_evidence(batch)
        nothing = no_evidence(batch.rgb.shape[0], batch.rgb.shape[1], size, batch.rgb)
        rows = [batch.rgb[0, 0].float() * 0.5 + 0.5, grey(maps.disparity[0, 0])]
        for name, evidence in (("", everything), ("_image_only", nothing)):
            latent = model.sample(
                batch.rgb, evidence, batch.frames, noise.to(batch.rgb.device), num_steps
            ).float()
            with torch.autocast(batch.rgb.device.type, enabled=False):
                decoded = model.codec.decode(latent)
                disparity = decoded.disparity
            with torch.autocast(batch.rgb.device.type, enabled=False):
                relative, close = depth_scores(disparity[:, :, 0].float(), batch.depth)
                add(f"abs_rel{name}", relative)
                add(f"delta{name}", close)
                points = point_error(decoded.points, maps.points)
                add(f"points{name}", points)
                for key, values in camera_scores(decoded.rays, batch.c2w, scales.length).items():
                    if name and key.endswith("static"):
                        continue
                    add(f"{key}{name}", values)
            rows.append(grey(disparity[0, 0]))
        template = torch.nn.functional.interpolate(
            model.codec.template[None, None], size, mode="bilinear", align_corners=False
        ).expand(batch.depth.shape[0], batch.depth.shape[1], -1, -1)
        relative, close = depth_scores(template, batch.depth)
        add("abs_rel_template", relative)
        add("delta_template", close)
        if number < 4:
            panels[f"window_{number}"] = torch.cat(rows, dim=2)
    means = {}
    for name, parts in scores.items():
        joined = torch.cat(parts)
        middle = name.startswith(("rotation", "ate"))
        means[name] = float(joined.median() if middle else joined.mean())
    return {name: value for name, value in means.items() if math.isfinite(value)}, panels


def point_error(
    predicted: Float[Tensor, "B T 3 H W"], truth: Float[Tensor, "B T 3 H W"]
) -> Float[Tensor, " B"]:
    """Mean distance of squashed points."""
    return (predicted - truth).norm(dim=2).flatten(1).mean(1)


def fit_codec(codec: LatentCodec, source: ClipSource, num_clips: int) -> None:
    """Bases, spreads and template from training clips.

    Every frame serves once as the first of a pair, so that points and rays are seen at all distances from the
    reference.
    """

    def maps() -> Iterator[NormalisedMaps]:
        for number in range(num_clips):
            clip = as_float(source(number))
            for offset in (0, clip.rgb.shape[0] // 2):
                order = torch.arange(clip.rgb.shape[0]).roll(-offset)
                normalised, _ = normalise(
                    clip.depth[order][None], clip.intrinsics[order][None], clip.c2w[order][None]
                )
                yield normalised

    codec.fit(maps())
