"""The errors that geo4d raises on purpose. Every message says what was expected, what came, and what to do.

``ValueError`` is kept for wrong arguments to a function. The classes here are for faults of the world around the
program (files, checkpoints, devices); the command line turns each into one line and a documented exit code.
"""

from __future__ import annotations


class Geo4DError(Exception):
    """Base of all expected failures; ``exit_code`` is what the command line returns."""

    exit_code = 1


class InputError(Geo4DError):
    """The input video, folder or data set is missing, damaged, or not what it claims to be."""

    exit_code = 3


class OutputError(Geo4DError):
    """The result cannot be written or read: exists already, locked, no space, no permission, incomplete."""

    exit_code = 4


class CheckpointError(Geo4DError):
    """A weight file is missing, foreign, incomplete or unsafe."""

    exit_code = 5


class MissingExtraError(Geo4DError):
    """An optional dependency is not installed."""

    exit_code = 6

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}'; install it with: pip install 'geo4d[{extra}]'"
        )


class ResourceError(Geo4DError):
    """Out of memory or another resource, after smaller settings were tried."""

    exit_code = 7


class GeometryError(Geo4DError):
    """No usable geometry came out (all windows bad, nothing valid), and going on would hide that."""

    exit_code = 8
