"""A stage of Geo4D's recipe -> its task, from fresh networks, a folder of weights, or a DynamiCrafter checkpoint."""

import copy
import logging
from dataclasses import asdict
from typing import Any

import torch

from geo4d.errors import CheckpointError, InputError
from geo4d.models.geo4d.widths import modalities_of
from geo4d.models.light_decoder import MOST_FLOPS, LightDecoder
from geo4d.training.data import Batch, stack_clips
from geo4d.training.full import Geo4DDiffusion, Geo4DPointDecoding
from geo4d.training.loop import Task
from geo4d.training.plans import Preset, Stage, StageRun
from geo4d.training.sources import as_float
from geo4d.training.stage_clips import validation_clips
from geo4d.training.tasks.geo4d.distilled import Geo4DOneStep, LightPointDecoding, share_of_flops
from geo4d.training.tasks.geo4d.networks import FolderPlan, Geo4DNetworks, fresh_networks, load_networks
from geo4d.training.tasks.geo4d.pictures import PictureCoding

logger = logging.getLogger(__name__)


def make_task(preset: Preset, stage: Stage, name: str, run: StageRun) -> Task:
    """The task of a stage.

    Raises:
        InputError: there is nothing to start from.
        CheckpointError: what it starts from does not fit, or has no channels of what the stage trains.
    """
    if run.start is not None:
        networks = load_networks(run.start, preset.geo4d, run.modalities)
    elif stage.kind == "pictures":
        networks = fresh_networks(preset.geo4d, run.modalities)
    else:
        wanted = f"the weights of '{stage.after}'" if stage.after else "DynamiCrafter's checkpoint"
        raise InputError(
            f"stage '{name}' of geo4d starts from {wanted}, or from any folder of Geo4D weights; name it with --start"
        )
    if stage.kind == "diffusion":
        _require_channels(stage, name, networks)
    facts: dict[str, Any] = {
        "stage": name,
        "stages": [*networks.before.get("stages", []), name],
        "seed": preset.seed,
        "loop": asdict(stage.loop),
        "data": "generator" if run.shards is None else "packed clips",
    }
    # A decoder that changes is not the one a light decoder was distilled from.
    plan = FolderPlan(
        networks, facts, _modalities(stage, name, networks), _options(preset, stage, networks),
        keep_light=stage.kind not in ("pictures", "decoder"),
    )  # fmt: skip
    validation = _validation(preset, stage, run)
    seed = stage.loop.seed
    if stage.kind == "pictures":
        return PictureCoding(networks.vae, plan, validation, seed=seed)
    if stage.kind == "decoder":
        return Geo4DPointDecoding(networks.point_vae, seed=seed, plan=plan, validation=validation)
    if stage.kind == "light":
        return _light_task(preset, networks, plan, validation, seed)
    if stage.kind == "one-step":
        teacher = copy.deepcopy(networks.unet)
        return Geo4DOneStep(
            networks.unet.requires_grad_(True), teacher, networks.vae, networks.constants, networks.config,
            modalities_of(networks.config), seed=seed, checkpointing=stage.loop.checkpointing, plan=plan,
            validation=validation,
        )  # fmt: skip
    return Geo4DDiffusion(
        networks.unet.requires_grad_(True), networks.vae, networks.constants, networks.config,
        stage.diffusion.modalities, seed=seed, checkpointing=stage.loop.checkpointing, plan=plan,
        validation=validation,
    )  # fmt: skip


def _light_task(
    preset: Preset, networks: Geo4DNetworks, plan: FolderPlan, validation: list[Batch], seed: int
) -> LightPointDecoding:
    """The light decoder of a folder, to train on, or a fresh one."""
    light = networks.light or LightDecoder(preset.light_decoder)
    share = share_of_flops(light.config, networks.config.vae)
    logger.info("the light decoder's arithmetic is %.1f %% of its teacher's at 448x768", 100 * share)
    if share > MOST_FLOPS:
        logger.warning(
            "a light decoder is meant to need at most %.0f %% of its teacher's arithmetic", 100 * MOST_FLOPS
        )
    return LightPointDecoding(
        light,
        networks.point_vae,
        plan,
        latent_scale=networks.config.latent_scale,
        seed=seed,
        validation=validation,
    )


def _require_channels(stage: Stage, name: str, networks: Geo4DNetworks) -> None:
    wanted, present = stage.diffusion.modalities, modalities_of(networks.config)
    if not set(wanted) <= set(present):
        raise CheckpointError(
            f"expected a network with channels of {', '.join(wanted)} for the stage '{name}', this one has those of "
            f"{', '.join(present)} alone; leave the stage out, or start from a wider network without --modalities"
        )


def _modalities(stage: Stage, name: str, networks: Geo4DNetworks) -> tuple[str, ...]:
    """What the network in the stage's folder predicts."""
    if stage.kind == "pictures":
        return ()
    if stage.kind == "diffusion":
        return tuple(stage.diffusion.modalities)
    present = modalities_of(networks.config)
    if stage.kind == "one-step" and networks.trained != present:
        raise CheckpointError(
            f"expected a teacher that predicts {', '.join(present)}, whose channels it has, for the stage '{name}', this "
            f"one was trained up to {', '.join(networks.trained) or 'none of them'}"
        )
    return networks.trained


def _options(preset: Preset, stage: Stage, networks: Geo4DNetworks) -> dict[str, Any]:
    """Size and last step at inference of a network that knows no released size, and the steps of a student.

    Published weights end on a latent that is too small, as their results were made so
    (``docs/decisions/geo4d-last-step-scale.md``); a network that begins with nothing ends on the latent it was taught.
    """
    if stage.kind in ("light", "one-step"):
        # What the folder before says of inference stays true.
        student = {"num_steps": 1} if stage.kind == "one-step" else {}
        return dict(networks.before.get("options", {})) | student
    height, width = stage.streams[0].size
    return {"height": height, "width": width, "clean_end": True} if preset.fresh else {}


def _validation(preset: Preset, stage: Stage, run: StageRun) -> list[Batch]:
    """Windows of clips that no stage trains on, one a batch."""
    source, _, count = validation_clips(preset, stage, run, holes=True)
    frames = torch.arange(stage.sampling.num_frames)
    return [stack_clips([as_float(source(number))], [frames], [number]) for number in range(count)]
