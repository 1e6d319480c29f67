"""Where a network of the hub lies on this machine, under which licence, and its loading without running stored code."""

import json
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.models.huggingface.config import PREFIX
from geo4d.models.store.download import model_store
from geo4d.models.store.sources import HubRepository

CONFIG, PREPROCESSING, CARD = "config.json", "preprocessor_config.json", "README.md"
PATTERNS = (CONFIG, PREPROCESSING, "*.safetensors", "*.safetensors.index.json", CARD, "LICENSE*")
"""What is fetched of a repository; pickled weights are not."""
_LICENCE_LINE = r"^(license|license_name|license_link):\s*[\"']?(.+?)[\"']?\s*$"
_LOADING_FAILS = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError, UnpicklingError, SafetensorError,
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def repository_of(name: str) -> HubRepository:
    """The repository that ``hf:OWNER/NAME`` means.

    Raises:
        CheckpointError: no such name.
    """
    name = name.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"expected {PREFIX}OWNER/NAME of a repository on the hub, such as "
            f"{PREFIX}depth-anything/Depth-Anything-V2-Small-hf, got {PREFIX}{name}"
        )
    return HubRepository(name, PATTERNS)


def store_folder(name: str) -> Path:
    """Where ``geo4d models pull hf:OWNER/NAME`` puts a repository."""
    return model_store() / "hf" / name.removeprefix(PREFIX).replace("/", "--")


def find_folder(name: str) -> Path:
    """The folder of a network: a folder itself, or one of the local store, or of the hub's own cache. Never downloads.

    Args:
        name: with or without ``hf:``.
    Raises:
        CheckpointError: it is not on this machine.
        MissingExtraError: it is not in a folder or the local store, and what reads the hub's cache is not installed.
    """
    plain = name.removeprefix(PREFIX)
    if plain and Path(plain).is_dir():
        return Path(plain)
    repository = repository_of(plain)
    folder = store_folder(plain)
    if (folder / CONFIG).is_file():
        return folder
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:  # comes with transformers, which the network needs anyway
        raise MissingExtraError("transformers", "transformers", "a depth network of the hub") from error
    try:
        cached = Path(snapshot_download(repository.repository, local_files_only=True))
    except LocalEntryNotFoundError:
        cached = None
    if cached is not None and (cached / CONFIG).is_file() and any(cached.glob("*.safetensors")):
        return cached
    raise CheckpointError(
        f"expected a folder, or a network of the hub that is on this machine, got {plain!r}, which is neither; "
        f"get it with: geo4d models pull {PREFIX}{plain}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        CheckpointError: missing, or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"expected {path.name} in {path.parent}, found none") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); pull the model again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def licence_of(folder: Path, name: str) -> str:
    """The licence that the model card states in its head, or the first line of a licence file; else where to look."""
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = text.partition("\n---")[0] if text.startswith("---\n") else ""
    stated = dict(re.findall(_LICENCE_LINE, head, re.MULTILINE))
    if "license" in stated:
        licence = stated["license"]
        if licence == "other":
            licence = stated.get("license_name", licence)
        return f"{licence} ({stated['license_link']})" if "license_link" in stated else licence
    for file in sorted(folder.glob("LICENSE*")):
        lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
        return next((line for line in lines if line), "unknown") + f" ({file.name})"
    plain = name.removeprefix(PREFIX)
    where = f"https://huggingface.co/{plain}" if not Path(plain).is_dir() else "whoever made it"
    return f"unknown, see {where}"


def weight_files(folder: Path) -> list[Path]:
    """
    Raises:
        CheckpointError: there are none, or pickled ones only; or their index names others.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        _require_listed(folder, files)
        return files
    pickled = [p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
    if pickled:
        raise CheckpointError(
            f"expected weights as *.safetensors in {folder}, found only {', '.join(sorted(pickled))}, which could run "
            "code when they are read; look for a revision with safetensors, or convert them yourself"
        )
    raise CheckpointError(f"expected weights as *.safetensors in {folder}, found none")


def _require_listed(folder: Path, files: list[Path]) -> None:
    """Raises CheckpointError where an index would have other files read than those that are checked."""
    for index in folder.glob("*.index.json"):
        parts = read_json(index).get("weight_map")
        if not isinstance(parts, dict):
            raise CheckpointError(f"{index}: expected a weight_map; pull the model again")
        strange = sorted({str(name) for name in parts.values()} - {file.name for file in files})
        if strange:
            raise CheckpointError(
                f"{index}: expected names of safetensors files beside it, got {', '.join(strange[:3])}; pull the model "
                "again"
            )


def _require_plain(folder: Path) -> None:
    """Raises CheckpointError where the settings bring in code or weights from elsewhere, or weights of another kind."""
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder}: expected a whole network, got an adapter for one; merge it into its network, and save that"
        )
    waiting: list[Any] = [read_json(folder / CONFIG)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        if not isinstance(value, dict):
            continue
        waiting += value.values()
        if value.get("quantization_config") is not None:
            raise CheckpointError(f"{folder}: expected weights in floating point, got a quantised network")
        for key in ("attn_implementation", "_attn_implementation"):
            if "/" in str(value.get(key, "")):
                raise CheckpointError(
                    f"{folder}: its {CONFIG} asks for code of the hub ({key}: {value[key]}); remove that line"
                )


def load_network(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The network, for inference, on the CPU.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: it cannot be built or filled from the folder.
    """
    try:
        from transformers import AutoModelForDepthEstimation
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError("transformers", "transformers", "a depth network of the hub") from error
    _require_plain(folder)
    logging.disable_progress_bar()  # loading takes a second; a run has bars of its own
    try:
        network, report = AutoModelForDepthEstimation.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=dtype,
        )
    except _LOADING_FAILS as error:
        raise CheckpointError(f"{folder}: transformers cannot load it: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing or report.get("mismatched_keys"):
        raise CheckpointError(
            f"{folder}: expected every tensor of the network, {len(missing)} are missing or of another shape "
            f"({', '.join(missing[:3])}, ...); it is another network's, or damaged"
        )
    return network.eval().requires_grad_(False)
