"""Which weights these are: SHA-256 of the files that are loaded, compared with what is known of them.

A hash is computed from the bytes, once per file: it is remembered with what tells that the file is still the same (place,
size, times of its last change, inode). What a file is compared with, in this order: a hash that comes with the package
(``sources.py``), which nobody changes without changing the package; the record of ``geo4d models pull``; nothing. The
identity that a result states is always made of hashes of the bytes, never of recorded ones.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from geo4d.errors import CheckpointError
from geo4d.formats.files import write_json
from geo4d.formats.hashes import sha256_of
from geo4d.models.store.sources import SOURCES, PinnedFile
from geo4d.models.trained import TRAINED, read_trained

log = logging.getLogger(__name__)

PULLED = "pulled.json"
"""Record of a pulled model: repository -> commit and SHA-256 of every file."""

SETTLED_S = 3.0
"""A file that changed less than so many seconds ago could change again without its times telling."""


@dataclass(frozen=True)
class CheckedWeights:
    """Files whose hashes were computed and compared.

    Attributes:
        sha256: file -> hash of its bytes.
        compared: how many files agree with what: ``pinned`` (hashes that come with the package), ``recorded`` (when they
            were pulled or converted), ``unknown`` (there is nothing to compare with).
    """

    sha256: Mapping[Path, str]
    compared: Mapping[str, int]

    @classmethod
    def merge(cls, parts: Iterable["CheckedWeights"]) -> "CheckedWeights":
        """All files of several checks."""
        files: dict[Path, str] = {}
        counts: Counter[str] = Counter()
        for part in parts:
            files |= part.sha256
            counts.update(part.compared)
        return cls(files, dict(counts))


def cache_folder() -> Path:
    """Where geo4d keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")) / "geo4d"


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes; computed once as long as the file stays the same."""
    key, stamp = str(path.resolve()), _stamp(path)
    known = _remembered()
    entry = known.get(key)
    if isinstance(entry, list) and entry[:-1] == stamp and isinstance(entry[-1], str):
        return entry[-1]
    digest = sha256_of(path)
    changed = max(stamp[3], stamp[4]) / 1e9
    if _stamp(path) == stamp and time.time() - changed > SETTLED_S:
        _remember(key, [*stamp, digest])
    return digest


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _memory() -> Path:
    return cache_folder() / "sha256.json"


def _remembered() -> dict[str, Any]:
    try:
        known = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(key: str, entry: list[Any]) -> None:
    kept = {path: value for path, value in _remembered().items() if Path(path).is_file()}
    try:
        _memory().parent.mkdir(parents=True, exist_ok=True)
        write_json(_memory(), {**kept, key: entry})
    except OSError as error:
        log.debug("hashes are not remembered: %s", error)


def read_pulled(folder: Path) -> dict[str, dict[str, Any]]:
    """What was pulled into a folder: repository -> ``revision``, ``folder`` and ``sha256`` by file; empty when nothing.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = folder / PULLED
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it and pull again") from error
    if not isinstance(record, dict) or not record or not all(_is_entry(entry) for entry in record.values()):
        raise CheckpointError(
            f"{path}: damaged, expected commit and hashes of every repository; delete it and pull again"
        )
    return record


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("revision"), str):
        return False
    hashes = entry.get("sha256")
    return (
        isinstance(hashes, dict)
        and bool(hashes)
        and all(
            _is_inside(name) and isinstance(value, str) and len(value) == 64 for name, value in hashes.items()
        )
        and _is_inside(entry.get("folder", ""))
    )


def _is_inside(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def pinned_files(repository: str, revision: str | None) -> Mapping[str, PinnedFile]:
    """Sizes and hashes that come with the package for a commit of a repository; none for another commit."""
    for source in SOURCES.values():
        for hub in source.hub:
            if hub.repository == repository and hub.revision is not None and hub.revision == revision:
                return hub.pinned
    return {}


def compare(path: Path, sha256: str, size: int | None, known_from: str) -> str:
    """The hash of a file, which must be this one.

    Args:
        size: in bytes; None: not known.
    Raises:
        CheckpointError: missing, or another file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; pull the model again")
    found = path.stat().st_size
    if size is not None and found != size:
        raise CheckpointError(
            f"{path}: has {found} bytes, {known_from} has {size}; it is cut off or another file: pull the model again"
        )
    digest = file_sha256(path)
    if digest != sha256:
        raise CheckpointError(
            f"{path}: SHA-256 is {digest}, {known_from} is {sha256}; it was changed or damaged: pull the model again"
        )
    return digest


def check_pulled(folder: Path, files: Iterable[Path] | None = None) -> CheckedWeights:
    """Compare files of a pulled model with the hashes of the package and of the record.

    Args:
        files: which; None: all of the record.
    Raises:
        CheckpointError: the record is missing or damaged, a file differs, or is not in the record.
    """
    expected: dict[Path, tuple[str, int | None, str]] = {}
    for repository, entry in read_pulled(folder).items():
        target = folder / entry.get("folder", "")
        pinned = pinned_files(repository, entry["revision"])
        for name in {**entry["sha256"], **(pinned if files is None else {})}:
            if name in pinned:
                expected[target / name] = (pinned[name].sha256, pinned[name].size, "pinned")
            else:
                expected[target / name] = (entry["sha256"][name], None, "recorded")
    if not expected:
        raise CheckpointError(f"expected a record {PULLED} of what was pulled in {folder}, found none")
    hashes: dict[Path, str] = {}
    counts: Counter[str] = Counter()
    for path in expected if files is None else files:
        if path not in expected:
            raise CheckpointError(
                f"{path} is not among the files that were pulled; remove it, or name a folder of your own with --weights"
            )
        sha256, size, kind = expected[path]
        origin = "the published one" if kind == "pinned" else "the one recorded when it was pulled"
        hashes[path] = compare(path, sha256, size, origin)
        counts[kind] += 1
    return CheckedWeights(hashes, dict(counts))


def check_weights(files: Iterable[Path]) -> CheckedWeights:
    """Hash weight files that are about to be loaded, and compare them with what is known of them.

    Files of a pulled or trained model are those of its record. Of files that the user brings, a hash that comes with the
    package tells that they are published ones; other files have an identity of their own and nothing to compare with.

    Raises:
        CheckpointError: a file of a pulled model is missing, was changed, or was added.
    """

    parts = []
    for path in files:
        roots = [folder for folder in list(path.parents)[:3] if (folder / PULLED).is_file()]
        if roots:
            parts.append(check_pulled(roots[0], [path]))
            continue
        trained = [folder for folder in list(path.parents)[:3] if (folder / TRAINED).is_file()]
        if trained:
            parts.append(check_trained(trained[0], [path]))
            continue
        if not path.is_file():
            raise CheckpointError(f"expected a weight file at {path}, found none")
        digest = file_sha256(path)
        kind = "pinned" if digest in _published() else "unknown"
        if kind == "unknown":
            log.info("%s: SHA-256 %s; there is no published hash to compare it with", path, digest)
        parts.append(CheckedWeights({path: digest}, {kind: 1}))
    return CheckedWeights.merge(parts)


def _published() -> set[str]:
    return {
        pinned.sha256 for source in SOURCES.values() for hub in source.hub for pinned in hub.pinned.values()
    }


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
