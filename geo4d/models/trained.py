"""Folders of weights that training wrote: what they are, and hashes of their files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import CheckpointError
from geo4d.formats.files import write_json
from geo4d.formats.hashes import sha256_of
from geo4d.models.store.identity import CheckedWeights, compare

TRAINED = "trained.json"
"""Record of a trained model: family, stage, settings, and SHA-256 of every other file of the folder."""

VERSION = 1


def write_trained(folder: Path, facts: Mapping[str, Any]) -> None:
    """Record what lies in a folder, with the hash of every file.

    Args:
        facts: JSON values with ``family`` and ``stage``.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != TRAINED)
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_json(folder / TRAINED, {"format": "geo4d-trained", "version": VERSION, **facts, "sha256": hashes})


def read_trained(folder: Path) -> dict[str, Any] | None:
    """The record of a folder; None where there is none.

    Raises:
        CheckpointError: it is damaged or of another version.
    """
    path = folder / TRAINED
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version, hashes = record["version"], record["sha256"]
        sound = record["format"] == "geo4d-trained" and isinstance(record["family"], str)
        sound = sound and isinstance(hashes, dict) and all(_is_entry(*item) for item in hashes.items())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); export the weights again") from error
    if version != VERSION or not sound:
        raise CheckpointError(
            f"{path}: expected a record of version {VERSION}, got {version!r}; export the weights again"
        )
    return dict(record)


def _is_entry(name: Any, digest: Any) -> bool:
    parts = Path(str(name)).parts
    return (
        isinstance(digest, str) and len(digest) == 64 and ".." not in parts and not Path(name).is_absolute()
    )


def check_trained(folder: Path, files: Iterable[Path] | None = None) -> CheckedWeights:
    """Compare files of a trained model with their recorded hashes.

    Args:
        files: which; None: all of the record.
    Raises:
        CheckpointError: the record is missing or damaged, a file differs, or is not in the record.
    """
    record = read_trained(folder)
    if record is None:
        raise CheckpointError(f"expected a record {TRAINED} of trained weights in {folder}, found none")
    recorded = {folder / name: digest for name, digest in record["sha256"].items()}
    found = {}
    for path in recorded if files is None else files:
        if path not in recorded:
            raise CheckpointError(f"{path} is not among the files that training wrote; remove it")
        found[path] = compare(path, recorded[path], None, "the one recorded when it was trained")
    return CheckedWeights(found, {"recorded": len(found)})
