"""``--model hf:NAME_OR_FOLDER``: a depth network of the hub under our cameras and fusion."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch

from geo4d.models.devices import DTYPES, default_device
from geo4d.models.huggingface.config import PREFIX, HuggingFaceOptions, meaning_of
from geo4d.models.huggingface.network import HubNetwork
from geo4d.models.huggingface.preprocessing import read_preprocessing
from geo4d.models.huggingface.weights import (
    CONFIG,
    PREPROCESSING,
    find_folder,
    licence_of,
    load_network,
    read_json,
    weight_files,
)
from geo4d.models.monodepth.pipeline import DepthPredictor, MonoDepthConfig
from geo4d.models.store.identity import check_weights


def load(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> DepthPredictor:
    """Load a depth network of the hub, from this machine only.

    Args:
        name: ``hf:`` and a repository (``owner/name``) or a folder with ``config.json`` and safetensors.
        weights: not taken; the name says where they are.
        device: None: a CUDA device if there is one, else the CPU.
        dtype: of the network; None: float32.
        options: fields of ``HuggingFaceOptions``.
    Raises:
        CheckpointError: not on this machine, or no network of a known family.
        MissingExtraError: transformers is not installed.
        ValueError: unknown option.
    """
    if weights is not None:
        raise ValueError(
            f"expected no weights beside {name}: it names its own; put the folder behind {PREFIX}"
        )
    known = {field.name for field in dataclasses.fields(HuggingFaceOptions)}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"expected options of {sorted(known)}, got also {unknown}")
    settings = HuggingFaceOptions(**options)
    folder = find_folder(name)
    config = read_json(folder / CONFIG)
    meaning = settings.output or meaning_of(config, str(folder))
    preprocessing = read_preprocessing(
        config["model_type"], read_json(folder / PREPROCESSING), str(folder), settings.size
    )
    files = weight_files(folder)
    checked = check_weights(files)
    network = load_network(folder, DTYPES[dtype or "float32"])
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    mono = {field.name: getattr(settings, field.name) for field in dataclasses.fields(MonoDepthConfig)}
    return DepthPredictor(
        HubNetwork(network, preprocessing, meaning, torch.device(device or default_device())),
        name=name,
        description=f"{config['model_type']} of the hub, {meaning}; under the cameras from tracks",
        licence=licence_of(folder, name),
        weights_sha256=_together([checked.sha256[file] for file in files]),
        weights_compared=checked.compared,
        config=MonoDepthConfig(**mono),
        # Activations: some hundred float32 numbers for each pixel of the network's picture.
        memory_bytes=size + 1600 * preprocessing.size[0] * preprocessing.size[1],
        settings={
            "meaning": meaning,
            "preprocessing": dataclasses.asdict(preprocessing),
            "dtype": dtype or "float32",
        },
    )


def _together(hashes: list[str]) -> str:
    """One hash: that of the file, or over those of several."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
