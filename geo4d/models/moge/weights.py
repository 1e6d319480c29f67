"""The published checkpoint: one file with the network's settings and its tensors. Names are the authors' throughout."""

from pathlib import Path

import torch

from geo4d.errors import CheckpointError
from geo4d.models.filling import fill_network
from geo4d.models.moge.config import MoGe2Config, MoGeConfig
from geo4d.models.moge.metric_model import MoGe2
from geo4d.models.moge.model import MoGe
from geo4d.models.store.download import model_store
from geo4d.models.store.pickles import read_torch_file

FILE = "model.pt"


def find_moge(weights: str | Path | None = None, name: str = "moge") -> Path:
    """The checkpoint file: ``weights`` or ``model.pt`` in it, or the one in the local model store (MoGe-1 with
    itself or with GeometryCrafter).

    Raises:
        CheckpointError: it is not there.
    """
    if weights is not None:
        path = Path(weights)
        candidates = [path / FILE if path.is_dir() else path]
    else:
        candidates = [model_store() / name / FILE]
        if name == "moge":
            candidates.append(model_store() / "geometrycrafter" / "moge" / FILE)
    for file in candidates:
        if file.is_file():
            return file
    raise CheckpointError(
        f"expected a MoGe checkpoint at {candidates[0]}, found none; get it with: geo4d models pull {name}"
    )


def load_moge2(file: Path) -> MoGe2:
    """Read a MoGe-2 checkpoint without running anything stored in it: a float32 network on the CPU, for inference.

    Raises:
        CheckpointError: no readable MoGe-2 checkpoint with a metric scale, contents that are not allowed, or keys are
            missing, unknown or of another shape.
    """
    content = read_torch_file(file)
    if not isinstance(content, dict) or not {"model_config", "model"} <= content.keys():
        raise CheckpointError(f"expected a MoGe checkpoint with 'model_config' and 'model' in {file}")
    try:
        config = MoGe2Config.from_published(content["model_config"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{file}: {error}; only MoGe-2 checkpoints with a metric scale can be read here"
        ) from error
    with torch.device("meta"):
        network = MoGe2(config)
    used = {key: value for key, value in content["model"].items() if not key.startswith("normal_head.")}
    return fill_network(network, used, torch.float32, f"{file} ({config.encoder})")


def load_moge(file: Path) -> MoGe:
    """Read a checkpoint without running anything stored in it: a float32 network on the CPU, for inference.

    Raises:
        CheckpointError: no readable MoGe-1 checkpoint, contents that are not allowed, or keys are missing, unknown or of
            another shape.
    """
    content = read_torch_file(file)
    if not isinstance(content, dict) or not {"model_config", "model"} <= content.keys():
        raise CheckpointError(f"expected a MoGe checkpoint with 'model_config' and 'model' in {file}")
    try:
        config = MoGeConfig.from_published(content["model_config"])
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{file}: {error}; only MoGe-1 checkpoints can be read here, MoGe-2 as moge2"
        ) from error
    with torch.device("meta"):
        network = MoGe(config)
    return fill_network(network, content["model"], torch.float32, f"{file} ({config.encoder})")
