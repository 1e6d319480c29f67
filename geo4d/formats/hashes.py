"""SHA-256 of files."""

import hashlib
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Digest(Protocol):
    """What ``hashlib.sha256()`` returns."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    hash_file(path, digest)
    return digest.hexdigest()


def hash_file(path: Path, digest: Digest) -> None:
    """Feed a file's bytes to a digest, a block at a time."""
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
