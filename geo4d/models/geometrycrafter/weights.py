"""Checkpoints in the layout of the model hub: one folder per network with ``config.json`` and safetensors files.

Every network here keeps the published names, so there is no key table; a load still accounts for every key.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geo4d.errors import CheckpointError
from geo4d.models.filling import fill_network
from geo4d.models.geometrycrafter.config import (
    Decoder,
    GeometryCrafterConfig,
    ImageEncoderConfig,
    ImageVAEConfig,
    PointMapVAEConfig,
    SchedulerConfig,
    UNetConfig,
    Variant,
    from_published,
)
from geo4d.models.store.identity import CheckedWeights, check_weights
from geo4d.models.store.reading import read_safetensors

if TYPE_CHECKING:
    from geo4d.models.geometrycrafter.stages import GeometryCrafter

SCHEDULER_CONFIG = "scheduler_config.json"

SVD_FOLDER = "svd"
"""Where the parts that GeometryCrafter takes from Stable Video Diffusion lie, if not beside its own."""

LIGHT_DECODER = "light_decoder"
"""Folder of the small decoder, which training adds (``geo4d train light-decoder``)."""


def component_folder(root: Path, component: str) -> Path:
    """Folder of one network, in ``root`` or in its ``svd`` folder.

    Raises:
        CheckpointError: neither exists.
    """
    for folder in (root / component, root / SVD_FOLDER / component):
        if folder.is_dir():
            return folder
    raise CheckpointError(
        f"expected a folder '{component}' in {root} or its '{SVD_FOLDER}'; get it with: geo4d models pull geometrycrafter"
    )


def read_config(folder: Path, name: str = "config.json") -> Mapping[str, Any]:
    """A published config file.

    Raises:
        CheckpointError: missing or not JSON.
    """
    try:
        parsed: Mapping[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"expected a readable {name} in {folder}: {error}") from error
    return parsed


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one network; full precision goes before ``fp16`` copies.

    Raises:
        CheckpointError: there is none.
    """
    files = [file for file in sorted(folder.glob("*.safetensors")) if ".non_ema." not in file.name]
    chosen = [file for file in files if ".fp16." not in file.name] or files
    if not chosen:
        raise CheckpointError(f"expected safetensors files in {folder}, found none")
    return chosen


def component_tensors(folder: Path, without: str | None = None) -> dict[str, Tensor]:
    """All tensors of one network, memory mapped.

    Args:
        without: leave out tensors in whose name this occurs.
    Raises:
        CheckpointError: there is no file, or one is damaged.
    """
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        found.update(read_safetensors(file))
    return {key: t for key, t in found.items() if without is None or without not in key}


def system_folders(root: Path, variant: Variant, decoder: Decoder = "full") -> dict[str, Path]:
    """Folders of the networks of a variant, by component.

    Raises:
        CheckpointError: one is missing.
    """
    if not root.is_dir():
        raise CheckpointError(
            f"expected the checkpoint folder {root}, found none; get it with: geo4d models pull geometrycrafter"
        )
    names = (f"unet_{variant}", "point_map_vae", "vae", "image_encoder")
    folders = {name: component_folder(root, name) for name in names}
    if decoder == "light":
        if not (root / LIGHT_DECODER).is_dir():
            raise CheckpointError(
                f"expected a light decoder (folder '{LIGHT_DECODER}') in {root} for decoder=light, found none; train one "
                f"with: geo4d train light-decoder --family geometrycrafter --start {root} -o RUN"
            )
        folders[LIGHT_DECODER] = root / LIGHT_DECODER
    return folders


def check_system(root: Path, variant: Variant, decoder: Decoder = "full") -> tuple[str, CheckedWeights]:
    """One hash over the bytes of all weight files of a variant, and what they and their configs were compared with.

    Raises:
        CheckpointError: a file is missing, or is not the one that was published or pulled.
    """
    folders = system_folders(root, variant, decoder)
    weights = {
        f"{name}/{file.name}": file for name, folder in folders.items() for file in weight_files(folder)
    }
    configs = [folder / "config.json" for folder in folders.values() if (folder / "config.json").is_file()]
    scheduler = scheduler_folder(root)
    if scheduler is not None:
        configs.append(scheduler / SCHEDULER_CONFIG)
    checked = check_weights([*weights.values(), *(path for path in configs if path.is_file())])
    lines = [f"{name} {checked.sha256[file]}" for name, file in weights.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), checked


def scheduler_folder(root: Path) -> Path | None:
    """Where the settings of the sampler lie, which are optional."""
    candidates = (root / "scheduler", root / SVD_FOLDER / "scheduler")
    return next((folder for folder in candidates if folder.is_dir()), None)


def load_system(
    root: Path, variant: Variant, config: GeometryCrafterConfig, device: torch.device | str = "cpu"
) -> "GeometryCrafter":
    """All networks of one variant from a checkpoint folder, each read in its own dtype.

    Args:
        root: holds ``unet_diff`` or ``unet_determ``, ``point_map_vae``, and (here or in ``svd``) ``vae``,
            ``image_encoder`` and, optionally, ``scheduler``; for ``config.decoder`` light also ``light_decoder``.
    Raises:
        CheckpointError: a folder, a file or a key is missing or foreign.
        MissingExtraError: diffusers or transformers is not installed.
    """
    from geo4d.models.devices import DTYPES
    from geo4d.models.geometrycrafter.embedding import build_image_encoder
    from geo4d.models.geometrycrafter.stages import GeometryCrafter
    from geo4d.models.geometrycrafter.unet import FrameTokenUNet
    from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
    from geo4d.models.light_decoder import LightDecoder, LightDecoderConfig

    folders = system_folders(root, variant, config.decoder)
    unet_dtype, encoder_dtype = DTYPES[config.unet_dtype], DTYPES[config.encoder_dtype]
    unet_config = dataclasses.asdict(from_published(UNetConfig, read_config(folders[f"unet_{variant}"])))
    point_config = from_published(PointMapVAEConfig, read_config(folders["point_map_vae"]))
    image_config = from_published(ImageVAEConfig, read_config(folders["vae"]))
    clip_config = from_published(ImageEncoderConfig, read_config(folders["image_encoder"]))
    with torch.device("meta"):
        unet, point_map_vae = FrameTokenUNet(**unet_config), PointMapVAE(point_config)
        image_vae, image_encoder = ImageVAE(image_config), build_image_encoder(clip_config)
        if config.decoder == "light":
            light_config = from_published(LightDecoderConfig, read_config(folders[LIGHT_DECODER]))
            point_map_vae.decoder = LightDecoder(light_config)

    def tensors(component: str, without: str | None = None) -> dict[str, Tensor]:
        return component_tensors(folders[component], without)

    fill_network(unet, tensors(f"unet_{variant}"), unet_dtype, f"unet_{variant}")
    point_tensors = tensors("point_map_vae")
    if config.decoder == "light":
        # The large decoder stays on disk.
        point_tensors = {key: t for key, t in point_tensors.items() if not key.startswith("decoder.")}
        point_tensors |= {f"decoder.{key}": t for key, t in tensors(LIGHT_DECODER).items()}
    fill_network(point_map_vae, point_tensors, torch.float32, "point_map_vae")
    # Inference never decodes pictures, so the image decoder is left on disk.
    fill_network(image_vae, tensors("vae", without="decoder."), encoder_dtype, "vae")
    fill_network(image_encoder, tensors("image_encoder", without="position_ids"), unet_dtype, "image_encoder")
    scheduler = SchedulerConfig()
    place = scheduler_folder(root)
    if place is not None:
        scheduler = from_published(SchedulerConfig, read_config(place, SCHEDULER_CONFIG))
    return GeometryCrafter(variant, unet, point_map_vae, image_vae, image_encoder, scheduler, config, device)
