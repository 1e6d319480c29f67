"""Entry points of other packages: found without loading any, loaded one by one, and every fault in them one error."""

import logging
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from geo4d.errors import PluginError

log = logging.getLogger(__name__)

PREDICTORS, READERS, EXPORTS, TRACKERS = (
    "geo4d.predictors",
    "geo4d.readers",
    "geo4d.exports",
    "geo4d.trackers",
)
"""The groups. docs/plugins.md says what an entry of each must be; examples/plugin has one of each."""


def plugin_points(group: str, what: str, known: Iterable[str]) -> dict[str, EntryPoint]:
    """Entry points of a group by name, without loading any; those that take a known name are left out with a warning.

    Args:
        what: "a format", for the warning.
        known: names that geo4d has itself.
    """
    known, found = set(known), {}
    for point in entry_points(group=group):
        if point.name in known:
            log.warning(
                "%s offers %s %r, which geo4d has already; it is left out",
                package_of(point),
                what,
                point.name,
            )
        else:
            found[point.name] = point
    return found


def load_point(point: EntryPoint, what: str, kind: type | None, described: str) -> Any:
    """What an entry point names.

    Args:
        what: "the format", for the message.
        kind: what it must be an instance of; None: something that can be called.
        described: the kind in words.
    Raises:
        PluginError: it cannot be imported, or is something else.
    """
    try:
        loaded = point.load()
    except Exception as error:  # whatever the code of others does while it is imported
        raise PluginError(
            f"{what} {point.name!r} of the package {package_of(point)} cannot be loaded ({point.value}): "
            f"{type(error).__name__}: {error}; mend or uninstall that package"
        ) from error
    if not (callable(loaded) if kind is None else isinstance(loaded, kind)):
        raise PluginError(
            f"expected {point.value} of the package {package_of(point)} to be {described}, "
            f"got {type(loaded).__name__}; mend or uninstall that package"
        )
    return loaded


def load_named(text: str, described: str) -> Any:
    """What ``package.module:attribute`` names; it must be something that can be called.

    Raises:
        PluginError: it cannot be imported, is not there, or cannot be called.
    """
    module, _, attribute = text.partition(":")
    try:
        loaded = getattr(import_module(module), attribute)
    except Exception as error:  # whatever the code of others does while it is imported
        raise PluginError(
            f"expected {text} to name {described}, it cannot be loaded: {type(error).__name__}: {error}; check that "
            "the module is installed or its folder is in PYTHONPATH"
        ) from error
    if not callable(loaded):
        raise PluginError(f"expected {text} to name {described}, got {type(loaded).__name__}")
    return loaded


def package_of(point: EntryPoint) -> str:
    """Name and version of the package that an entry point comes from."""
    return "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"
