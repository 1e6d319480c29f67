"""One clip of a batch: where it comes from, and the name that its result gets."""

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

NAME_HASH = 12
"""Hexadecimal digits behind a name: two of a million clips share them with a probability of 0.002, which is an error."""

_READABLE = 60


@dataclass(frozen=True)
class Clip:
    """A video that is to be reconstructed.

    Attributes:
        name: of its result, unique among all sources and always the same for one source.
        kind: ``path`` (a file, or a folder of pictures), ``tar`` (a member of one), or ``remote`` (an object of a store).
        location: absolute path, or URL.
        member: name inside the tar.
        offset, size: bytes of the member, or of the object.
        stamp: what is compared before any content is read: sizes, times of change, tags of a store.
    """

    name: str
    kind: Literal["path", "tar", "remote"]
    location: str
    member: str = ""
    offset: int = 0
    size: int = 0
    stamp: tuple[str | int, ...] = ()

    @property
    def source(self) -> str:
        """For people: the path or URL, and the member behind a bar."""
        return f"{self.location}|{self.member}" if self.member else self.location

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {**asdict(self), "stamp": list(self.stamp)}


def make_name(location: str, member: str = "") -> str:
    """A name for the result of a source: readable, of plain characters, and with a hash of the whole place.

    Args:
        location: absolute path or URL.
        member: name inside a tar, with its number where a tar holds the name twice.
    """
    parts = [part for part in re.split(r"[/\\]+", member or location) if part] or ["clip"]
    if member:
        parts = [re.split(r"[/\\]+", location)[-1].rsplit(".", 1)[0], *parts]
    stem, dot, suffix = parts[-1].rpartition(".")
    parts[-1] = stem if dot and stem and len(suffix) <= 5 else parts[-1]
    readable = "_".join(re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-") for part in parts[-2:])
    digest = hashlib.sha256(f"{location}\0{member}".encode(errors="surrogateescape")).hexdigest()
    return f"{readable[-_READABLE:].strip('-_') or 'clip'}-{digest[:NAME_HASH]}"


def in_shard(name: str, shard: tuple[int, int] | None) -> bool:
    """Whether a clip belongs to a share (number from 1, of how many); its share depends on its name alone."""
    if shard is None:
        return True
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % shard[1] == shard[0] - 1


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """``I/N`` with 1 <= I <= N.

    Raises:
        ValueError: something else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"expected --shard I/N with I from 1 to N, such as 3/10, got {text!r}")
    return int(match[1]), int(match[2])
