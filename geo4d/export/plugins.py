"""Formats of other packages: entry points of the group ``geo4d.exports``, each a ``Format``."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint

from geo4d.export.format import Format
from geo4d.plugins import entry


def plugin_points(known: Iterable[str]) -> dict[str, EntryPoint]:
    """Entry points by name, without loading any; those that take a name of ``known`` are left out with a warning."""
    return entry.plugin_points(entry.EXPORTS, "a format", known)


def load_plugin(point: EntryPoint) -> Format:
    """The format that an entry point names.

    Raises:
        PluginError: it cannot be imported, or is no ``Format``.
    """
    loaded: Format = entry.load_point(point, "the format", Format, "a geo4d.export.Format")
    return loaded
