"""Folders of weights that training wrote: what they are, and hashes of their files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import CheckpointError
from geo4d.formats.files import write_json
from geo4d.formats.hashes import sha256_of

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
