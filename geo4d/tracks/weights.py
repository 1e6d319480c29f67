"""Weights of trackers, detectors, matchers, mask finders that the user has placed on this machine; none is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from geo4d.errors import CheckpointError, MissingExtraError


def load_state(model: torch.nn.Module, path: str | Path, name: str) -> Any:
    """The model in evaluation mode with the weights of a file, under the authors' keys or those of kornia.

    Raises:
        CheckpointError: the file is missing or does not fit.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"expected {name} weights at {path}, found nothing")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("extractor", state)
        renamed = {}
        for key, value in state.items():
            parts = key.removeprefix("matcher.").split(".")
            if parts[0] in ("self_attn", "cross_attn"):  # the authors' order of LightGlue's blocks
                parts[:2] = ["transformers", parts[1], parts[0]]
            renamed[".".join(parts)] = value
        fixed = {k: v for k, v in model.named_buffers() if k == "confidence_thresholds"}
        model.load_state_dict({**fixed, **renamed})
    except (RuntimeError, AttributeError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(f"{path} does not hold {name} weights: {error}") from error
    return model.eval()


def load_folder(kind: str, folder: str | Path, name: str) -> Any:
    """A model of transformers in evaluation mode, from a folder as ``save_pretrained`` writes it.

    Args:
        kind: its class in transformers.
        name: of the model, for messages.
    Raises:
        MissingExtraError: transformers is not installed, or too old for this class.
        CheckpointError: the folder is missing or holds something else.
    """
    try:
        import transformers

        model_class: Any = getattr(transformers, kind)
    except (ImportError, AttributeError) as error:
        raise MissingExtraError("transformers", "geometrycrafter", name) from error
    if not Path(folder).is_dir():
        raise CheckpointError(f"expected a folder of {name} at {folder}, found nothing")
    try:
        return model_class.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} does not hold {name}: {error}") from error
