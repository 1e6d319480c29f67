"""The weight file of the bundled model: fp16 safetensors; sizes, calibration and training record in its metadata."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from geo4d.errors import CheckpointError
from geo4d.models.store.identity import CheckedWeights, check_trained, file_sha256
from geo4d.models.tiny.calibration import Calibration
from geo4d.models.tiny.config import TinyConfig
from geo4d.models.tiny.model import TinyModel
from geo4d.models.trained import TRAINED

BUNDLED = Path(__file__).with_name("model.safetensors")
BUNDLED_SHA256 = "0ce70db9f4b81b27c0cf013b04807a4ef1f2b49abff15d2f304785b4aec3f21a"
"""Of the bundled file; a newly trained one brings a new line here."""


def save_model(model: TinyModel, path: Path, record: dict[str, Any] | None = None) -> None:
    """Write the model; both networks in half precision, the codec's statistics in single.

    Args:
        record: what to remember about the training (JSON values).
    """
    tensors = {
        name: (value.detach().float() if name.startswith("codec.") else value.detach().half())
        .contiguous()
        .cpu()
        for name, value in model.state_dict().items()
    }
    metadata = {
        "config": json.dumps(asdict(model.config)),
        "calibration": json.dumps(asdict(model.calibration)),
        "record": json.dumps(record or {}),
    }
    save_file(tensors, str(path), metadata)


def load_model(path: Path | None = None) -> TinyModel:
    """Read a model file, the bundled one by default.

    Raises:
        CheckpointError: the file is missing, not ours, or does not fit the sizes it states.
    """
    path = path or BUNDLED
    if not path.is_file():
        raise CheckpointError(f"expected the weights of the tiny model at {path}, found no such file")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type for damaged files
        if type(error).__module__.startswith("safetensors"):
            raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
        raise
    if "config" not in metadata:
        raise CheckpointError(f"{path} does not state the sizes of a tiny model; is it another model's file?")
    stated = json.loads(metadata["config"])
    if "decoder_width" in stated:
        raise CheckpointError(
            f"{path} is a bundled model of before the picture encoder; it cannot be used any more"
        )
    unknown = set(stated) - {field.name for field in fields(TinyConfig)}
    if unknown:
        raise CheckpointError(
            f"{path} states unknown sizes {sorted(unknown)}; it was written by another version"
        )
    stated["depth_widths"] = tuple(stated["depth_widths"])
    model = TinyModel(TinyConfig(**stated))
    missing, foreign = model.load_state_dict(tensors, strict=False)
    if missing or foreign:
        raise CheckpointError(f"{path}: missing {sorted(missing)[:5]}, not ours {sorted(foreign)[:5]}")
    try:
        model.calibration = Calibration.from_dict(json.loads(metadata.get("calibration", "{}")))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the calibration of the spreads cannot be read: {error}") from error
    return model.eval()


def read_record(path: Path | None = None) -> dict[str, Any]:
    """What ``save_model`` was told about the training."""
    with safe_open(str(path or BUNDLED), framework="pt") as file:
        return json.loads((file.metadata() or {}).get("record", "{}"))


def check_file(path: Path | None = None) -> CheckedWeights:
    """Hash of a weight file; the bundled one must be the one that was released.

    Raises:
        CheckpointError: missing, or the bundled file, or one with a record of its training, was changed.
    """
    path = path or BUNDLED
    if not path.is_file():
        raise CheckpointError(f"expected the weights of the tiny model at {path}, found no such file")
    if (path.parent / TRAINED).is_file():
        return check_trained(path.parent, [path])
    digest = file_sha256(path)
    if digest == BUNDLED_SHA256:
        return CheckedWeights({path: digest}, {"pinned": 1})
    if path.resolve() == BUNDLED.resolve():
        raise CheckpointError(
            f"{path}: SHA-256 is {digest}, that of the bundled model is {BUNDLED_SHA256}; install geo4d again"
        )
    return CheckedWeights({path: digest}, {"unknown": 1})
