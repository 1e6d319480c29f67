"""Fetching from the Hugging Face hub at one commit, with every file's hash recorded and checked afterwards."""

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import CheckpointError
from geo4d.models.checkpoints import sha256_of
from geo4d.models.sources import HubRepository

PULLED = "pulled.json"
"""Record of a pulled model: repository -> commit and SHA-256 of every file."""


def read_pulled(folder: Path) -> dict[str, Any]:
    """What was pulled into a folder; empty when nothing was.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = folder / PULLED
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it and pull again") from error


def fetch_repository(
    repository: HubRepository,
    folder: Path,
    revision: str | None,
    known: Mapping[str, str],
    *,
    offline: bool = False,
) -> dict[str, Any]:
    """Bring the files of one repository to ``folder``.

    Args:
        revision: commit; None asks the hub for the newest one.
        known: path below the target -> hash recorded earlier; a file that differs now is an error.
        offline: only check what is there.
    Returns:
        ``revision`` and ``sha256`` of every file, for the record.
    Raises:
        CheckpointError: no network, a gated repository, or a file with another hash than recorded.
    """
    target = folder / repository.folder if repository.folder else folder
    if offline:
        if not known:
            raise CheckpointError(f"{repository.repository} is not in the local store and --offline is set")
        _compare(target, known)
        return {"revision": revision, "sha256": dict(known)}
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(repository.repository, revision=revision)
        names = [file.rfilename for file in info.siblings or []]
        wanted = [n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in repository.patterns)]
        for name in wanted:
            hf_hub_download(repository.repository, name, revision=info.sha, local_dir=target)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot fetch {repository.repository}: {error}; run the same command again to go on"
        ) from error
    if not wanted:
        raise CheckpointError(f"{repository.repository} at {info.sha} has none of {repository.patterns}")
    hashes = {name: sha256_of(target / name) for name in wanted}
    if revision == info.sha:
        _compare(target, known)
    return {"revision": info.sha, "sha256": hashes, "folder": repository.folder}


def verify_pulled(folder: Path) -> int:
    """Compare all files of a pulled model with their record.

    Returns:
        number of files.
    Raises:
        CheckpointError: one is missing or differs.
    """
    count = 0
    for record in read_pulled(folder).values():
        _compare(folder / record.get("folder", ""), record["sha256"])
        count += len(record["sha256"])
    return count


def _compare(target: Path, hashes: Mapping[str, str]) -> None:
    for name, recorded in hashes.items():
        path = target / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; pull the model again")
        found = sha256_of(path)
        if found != recorded:
            raise CheckpointError(
                f"{path}: SHA-256 is {found}, recorded was {recorded}; delete it and pull again"
            )
