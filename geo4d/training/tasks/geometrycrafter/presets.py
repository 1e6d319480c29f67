"""The stages of GeometryCrafter's training and their numbers at both sizes.

Numbers of ``full`` are those of the supplement; where it gives none, the comment says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from geo4d.datasets.stream import Kind as ClipKind
from geo4d.training.loop import LoopConfig
from geo4d.training.tasks.geometrycrafter.denoising import NoiseConfig
from geo4d.training.tasks.geometrycrafter.losses import LightWeights, PointMapWeights
from geo4d.training.tasks.geometrycrafter.networks import (
    Sizes,
    reduced_sizes,
    smallest_sizes,
)
from geo4d.training.tasks.geometrycrafter.windows import WindowCut

Kind = Literal["pictures", "maps", "unet", "light", "one-step"]

WITH_PRIOR = ("unet", "one-step")
"""Kinds of stages whose network sees a per-frame prior."""


@dataclass(frozen=True)
class Stage:
    """One run of the loop.

    Attributes:
        kind: what is trained.
        after: the stage whose folder it starts from; None: from published weights, or from nothing.
        cut: size and length of the windows.
        loop: steps, batch, rates.
        seen: of a window's frames those that pass through the networks; the others only take part in what depth is
            divided by. None: all.
        temporal_only: train the layers that mix frames.
        clips: which packed sets feed it; sets of single pictures feed stages of single frames only.
        weights: of the losses of the point-map VAE.
        noise: levels of the UNet's training.
        light_weights: of the losses of the light decoder.
        first_clip: number of the first generated clip.
        note: one line for people.
    """

    kind: Kind
    after: str | None
    cut: WindowCut
    loop: LoopConfig
    seen: int | None = None
    temporal_only: bool = False
    clips: ClipKind = "video"
    weights: PointMapWeights = field(default_factory=PointMapWeights)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    light_weights: LightWeights = field(default_factory=LightWeights)
    first_clip: int = 0
    note: str = ""


@dataclass(frozen=True)
class Preset:
    """A model size with its stages.

    Attributes:
        stages: by name, in order.
        chain: what ``all`` runs, in order.
        sizes: of fresh networks.
        fresh: stages without a start begin with fresh networks (no published weights are needed).
        clip_frames: frames of a generated clip.
        seed: of clips, noise and start.
    """

    stages: Mapping[str, Stage]
    chain: tuple[str, ...]
    sizes: Sizes
    fresh: bool
    clip_frames: int
    seed: int


def full() -> Preset:
    """The published recipe: Stable Video Diffusion's autoencoder frozen, the UNet from DepthCrafter's weights."""
    seed = 17
    size = (320, 640)
    # Rates, steps and batches of the VAE, rate and batch of the UNet: supplement. It gives no number of steps for the
    # UNet and no warm-up, weight decay or average; these are ours.
    loop = LoopConfig(
        num_steps=40_000, batch=64, learning_rate=1e-4, warmup=500, decay=0.0, weight_decay=0.01, betas=(0.9, 0.999),
        ema_decay=0.9999, evaluate_every=0, save_every=1000, seed=seed,
    )  # fmt: skip
    unet = replace(loop, num_steps=50_000, batch=8, learning_rate=1e-5, checkpointing=True)
    stages = {
        "maps": Stage(
            "maps", None, WindowCut(size, (1, 1), seed=seed), loop, clips="all",
            note="offset encoder and point-map decoder on single pictures",
        ),
        "maps-video": Stage(
            "maps", "maps", WindowCut(size, (1, 8), seed=seed), replace(loop, num_steps=20_000, batch=8),
            temporal_only=True, note="temporal layers of the point-map decoder on video of 1 to 8 frames",
        ),
        "unet": Stage(
            "unet", "maps-video", WindowCut(size, (1, 25), seed=seed), unet,
            note="the diffusion network on 1 to 25 frames",
        ),
        "unet-long": Stage(
            "unet", "unet", WindowCut(size, (1, 110), seed=seed), unet, temporal_only=True,
            note="its temporal layers on 1 to 110 frames",
        ),
    }  # fmt: skip
    chain = tuple(stages)
    # Beyond the paper, so that every number is ours.
    stages |= {
        "light-decoder": Stage(
            "light", "maps-video", WindowCut(size, (1, 8), seed=seed),
            replace(loop, num_steps=60_000, batch=8, learning_rate=3e-4, decay=0.5),
            note="a small decoder, distilled from the point-map decoder",
        ),
        "one-step": Stage(
            "one-step", "unet-long", WindowCut(size, (1, 25), seed=seed), replace(unet, num_steps=20_000),
            note="a student that takes one step where the diffusion network takes five",
        ),
    }  # fmt: skip
    return Preset(stages, chain, Sizes(), fresh=False, clip_frames=110, seed=seed)


def smallest() -> Preset:
    """All stages in minutes on one core, with a picture autoencoder of its own in place of the published one."""
    seed = 7
    size = (64, 64)
    loop = LoopConfig(
        num_steps=60, batch=4, learning_rate=1e-3, warmup=10, decay=0.3, precision="no", ema_decay=0.98,
        log_every=20, evaluate_every=0, save_every=20, seed=seed,
    )  # fmt: skip
    weights = PointMapWeights(alphas=(2, 4, 8))
    video = replace(loop, batch=2, num_steps=30)
    stages = {
        "pictures": Stage(
            "pictures", None, WindowCut(size, (1, 2), seed=seed), loop, clips="all",
            note="picture autoencoder in the role of Stable Video Diffusion's",
        ),
        "maps": Stage(
            "maps", "pictures", WindowCut(size, (1, 1), seed=seed), loop, clips="all", weights=weights,
            first_clip=10_000, note="offset encoder and point-map decoder on single pictures",
        ),
        "maps-video": Stage(
            "maps", "maps", WindowCut(size, (1, 4), seed=seed), replace(video, learning_rate=5e-4), weights=weights,
            temporal_only=True, first_clip=20_000, note="temporal layers of the point-map decoder",
        ),
        "unet": Stage(
            "unet", "maps-video", WindowCut(size, (1, 4), seed=seed), replace(loop, num_steps=60),
            first_clip=30_000, note="the diffusion network",
        ),
        "unet-long": Stage(
            "unet", "unet", WindowCut(size, (1, 8), seed=seed), replace(video, learning_rate=5e-4), temporal_only=True,
            first_clip=40_000, note="its temporal layers on longer windows",
        ),
    }  # fmt: skip
    chain = tuple(stages)
    stages |= {
        "light-decoder": Stage(
            "light", "maps-video", WindowCut(size, (1, 4), seed=seed), replace(loop, learning_rate=2e-3),
            light_weights=LightWeights(alphas=(2, 4, 8)), first_clip=50_000,
            note="a small decoder, distilled from the point-map decoder",
        ),
        "one-step": Stage(
            "one-step", "unet-long", WindowCut(size, (1, 4), seed=seed), replace(video, learning_rate=2e-4),
            first_clip=60_000, note="a student that takes one step where the diffusion network takes five",
        ),
    }  # fmt: skip
    return Preset(stages, chain, smallest_sizes(), fresh=True, clip_frames=8, seed=seed)


def reduced() -> Preset:
    """The stages of ``smallest`` with a wider UNet, larger pictures and more steps: an hour or two on two cores."""
    made = smallest()
    size = (64, 128)  # the aspect of the published 320x640

    def longer(name: str, frames: tuple[int, int], steps: int) -> Stage:
        stage = made.stages[name]
        loop = replace(
            stage.loop,
            precision="bf16",
            num_steps=steps,
            warmup=50,
            ema_decay=0.995,
            log_every=50,
            evaluate_every=500,
            save_every=100,
        )
        return replace(stage, cut=replace(stage.cut, size=size, frames=frames), loop=loop)

    stages = dict(made.stages) | {
        # Frames of a video are divided by what belongs to the whole of it. Coders that have seen single pictures alone,
        # each divided by its own, lose how far a frame is from the others: of the error of a window that is most.
        "pictures": _in_batches_of(2, replace(longer("pictures", (1, 8), 800), seen=4)),
        # One number for a whole frame is learned last. With the weight of the supplement it was not after 1,700 steps.
        "maps": replace(
            longer("maps", (1, 8), 2400), seen=1, weights=replace(made.stages["maps"].weights, theta=4.0)
        ),
        "maps-video": longer("maps-video", (1, 8), 200),
        "unet": longer("unet", (1, 8), 1300),
        "unet-long": longer("unet-long", (1, 16), 80),
        "light-decoder": longer("light-decoder", (1, 4), 1000),
        "one-step": longer("one-step", (1, 8), 400),
    }
    return replace(made, stages=stages, sizes=reduced_sizes(), clip_frames=16, seed=19)


def _in_batches_of(batch: int, stage: Stage) -> Stage:
    return replace(stage, loop=replace(stage.loop, batch=batch))


PRESETS = {"smallest": smallest, "reduced": reduced, "full": full}


def find_chain(preset_name: str) -> list[str]:
    """Stages that ``all`` runs, in order.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if preset_name not in PRESETS:
        raise ValueError(
            f"expected a preset of geometrycrafter out of {', '.join(PRESETS)}, got {preset_name!r}"
        )
    return list(PRESETS[preset_name]().chain)


def find_stage(preset_name: str, stage_name: str) -> tuple[Preset, Stage]:
    """Look both names up.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    find_chain(preset_name)
    preset = PRESETS[preset_name]()
    if stage_name not in preset.stages:
        raise ValueError(
            f"expected a stage of geometrycrafter's '{preset_name}' out of {', '.join(preset.stages)}, got {stage_name!r}"
        )
    return preset, preset.stages[stage_name]
