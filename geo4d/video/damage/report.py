"""Damage of a container, in words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """What is wrong with a container.

    Attributes:
        text: in a few words.
        position: first byte that must not be used; None: the order of what follows is known, pictures tell the rest.
    """

    text: str
    position: int | None = None


def early(bytes_missing: int) -> str:
    """That the file ends so many bytes too early."""
    return f"the file ends {bytes_missing} byte{'' if bytes_missing == 1 else 's'} early"


def broken(position: int) -> str:
    """That nothing sensible stands at this byte."""
    return f"the structure of the file is broken at byte {position}"
