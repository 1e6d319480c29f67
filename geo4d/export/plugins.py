"""Formats of other packages: entry points of the group ``geo4d.exports``, each a ``Format``."""

import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from geo4d.errors import PluginError
from geo4d.export.format import Format

log = logging.getLogger(__name__)

GROUP = "geo4d.exports"


def plugin_points(known: Iterable[str]) -> dict[str, EntryPoint]:
    """Entry points by name, without loading any; those that take a name of ``known`` are left out with a warning."""
    known, found = set(known), {}
    for point in entry_points(group=GROUP):
        if point.name in known:
            log.warning(
                "%s offers a format %r, which geo4d has already; it is left out", _package(point), point.name
            )
        else:
            found[point.name] = point
    return found


def load_plugin(point: EntryPoint) -> Format:
    """The format that an entry point names.

    Raises:
        PluginError: it cannot be imported, or is no ``Format``.
    """
    try:
        loaded = point.load()
    except Exception as error:  # whatever the code of others does while it is imported
        raise PluginError(
            f"the format {point.name!r} of the package {_package(point)} cannot be loaded ({point.value}): "
            f"{type(error).__name__}: {error}; mend or uninstall that package"
        ) from error
    if not isinstance(loaded, Format):
        raise PluginError(
            f"expected {point.value} of the package {_package(point)} to be a geo4d.export.Format, "
            f"got {type(loaded).__name__}; mend or uninstall that package"
        )
    return loaded


def _package(point: EntryPoint) -> str:
    return "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"
