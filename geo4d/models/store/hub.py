"""Fetching from the Hugging Face hub at one commit; a file gets its name when its hash is the right one."""

import fnmatch
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.formats.hashes import sha256_of
from geo4d.models.store.identity import PULLED, check_pulled, compare, pinned_files, read_pulled
from geo4d.models.store.sources import HubRepository

__all__ = ["PULLED", "fetch_repository", "read_pulled", "verify_pulled"]

_INCOMING = ".incoming"
"""Folder in which downloads lie until they are complete and compared; a stopped one goes on there."""


def fetch_repository(
    repository: HubRepository,
    folder: Path,
    revision: str | None,
    known: Mapping[str, str],
    *,
    offline: bool = False,
) -> dict[str, Any]:
    """Bring the files of one repository to ``folder``.

    Every file is compared with all that is known of it: the hash that comes with the package, the one recorded
    earlier for this commit, and what the hub itself states for the commit. A file that is there and is not the right
    one is replaced by the right one.

    Args:
        revision: commit; None: the one that comes with the package, else the newest one.
        known: path below the target -> hash recorded earlier at ``revision``; a file that differs now is an error.
        offline: only check what is there.
    Returns:
        ``revision``, ``folder``, and ``sha256`` of every file, for the record.
    Raises:
        CheckpointError: no network, a gated repository, another commit than asked for, or a wrong file.
        MissingExtraError: huggingface_hub is not installed, and ``offline`` is not set.
    """
    target = folder / repository.folder if repository.folder else folder
    wanted = revision or repository.revision
    if offline:
        if not known:
            raise CheckpointError(f"{repository.repository} is not in the local store and --offline is set")
        for name, digest in known.items():
            compare(target / name, digest, None, "the one recorded when it was pulled")
        return {"revision": revision, "sha256": dict(known), "folder": repository.folder}
    hub = _hub_library()
    try:
        info = hub.HfApi().model_info(repository.repository, revision=wanted, files_metadata=True)
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise _not_fetched(repository, error) from error
    if (
        wanted is not None
        and re.fullmatch(r"[0-9a-f]{7,40}", wanted)
        and not str(info.sha).startswith(wanted)
    ):
        raise CheckpointError(
            f"{repository.repository}: asked the hub for commit {wanted}, it answered {info.sha}; nothing is taken"
        )
    stated = {file.rfilename: file for file in info.siblings or []}
    names = [n for n in stated if any(fnmatch.fnmatch(n, pattern) for pattern in repository.patterns)]
    pinned = pinned_files(repository.repository, info.sha)
    missing = sorted(set(pinned) - set(names))
    if not names or missing:
        raise CheckpointError(
            f"{repository.repository} at {info.sha} has none of {missing or list(repository.patterns)}"
        )
    recorded = known if revision == info.sha else {}
    hashes = {}
    for name in names:
        facts = _facts(stated[name])
        for origin, sha256 in (
            ("the published one", pinned[name].sha256 if name in pinned else None),
            ("the recorded one", recorded.get(name)),
        ):
            if sha256 is not None and facts.setdefault("sha256", sha256) != sha256:
                raise CheckpointError(
                    f"{repository.repository}: {origin} of {name} has SHA-256 {sha256}, the hub states "
                    f"{facts['sha256']} for commit {info.sha}; nothing is taken"
                )
        hashes[name] = _fetch_file(repository, name, str(info.sha), target, facts)
    shutil.rmtree(target / _INCOMING, ignore_errors=True)
    return {"revision": info.sha, "sha256": hashes, "folder": repository.folder}


def stated_licence(repository: HubRepository, revision: str | None = None) -> str:
    """The licence that the hub states for a repository, or where to look.

    Raises:
        CheckpointError: no network, or a gated repository.
        MissingExtraError: huggingface_hub is not installed.
    """
    hub = _hub_library()
    try:
        card = getattr(hub.HfApi().model_info(repository.repository, revision=revision), "card_data", None)
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise _not_fetched(repository, error) from error
    stated = None if card is None else card.get("license_name") or card.get("license")
    return str(stated or f"unknown, see https://huggingface.co/{repository.repository}")


def _hub_library() -> Any:
    """``huggingface_hub``, which only fetching needs."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub", "fetching from the Hugging Face hub") from error
    return huggingface_hub


def _facts(stated: Any) -> dict[str, str]:
    """What the hub says about a file: ``sha256`` of a large one, the ``git`` object of a small one."""
    lfs, blob = getattr(stated, "lfs", None), getattr(stated, "blob_id", None)
    sha256 = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)
    if sha256 is not None:
        return {"sha256": str(sha256)}
    return {"git": str(blob)} if blob is not None else {}


def _fetch_file(
    repository: HubRepository, name: str, commit: str, target: Path, facts: Mapping[str, str]
) -> str:
    """Bring one file; the hash of its bytes."""
    hub = _hub_library()
    final = target / name
    if facts and final.is_file() and _is_it(final, facts):
        return sha256_of(final)
    incoming = target / _INCOMING
    try:
        hub.hf_hub_download(repository.repository, name, revision=commit, local_dir=incoming)
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise _not_fetched(repository, error) from error
    if not _is_it(incoming / name, facts):
        found = sha256_of(incoming / name)
        (incoming / name).unlink()
        raise CheckpointError(
            f"{repository.repository}: {name} came with SHA-256 {found}, expected "
            f"{facts.get('sha256') or 'git object ' + facts.get('git', '')}; it is not kept: pull again"
        )
    digest = sha256_of(incoming / name)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(incoming / name, final)
    return digest


def _is_it(path: Path, facts: Mapping[str, str]) -> bool:
    if "sha256" in facts:
        return sha256_of(path) == facts["sha256"]
    if "git" in facts:
        data = path.read_bytes()
        return (
            hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == facts["git"]
        )
    return True


def _not_fetched(repository: HubRepository, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot fetch {repository.repository}: {error}; run the same command again to go on"
    )


def verify_pulled(folder: Path) -> dict[str, int]:
    """Compare all files of a pulled model with what is known of them.

    Returns:
        how many files agree with what, see ``identity.CheckedWeights``.
    Raises:
        CheckpointError: there is no record, or a file is missing or differs.
    """
    return dict(check_pulled(folder).compared)
