"""Licences of what the user installs: trackers, detectors, matchers and mask finders say theirs before the first use."""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

log = logging.getLogger(__name__)


NO_WEIGHTS = "none: no weights"
"""Licence of what needs no weights; nothing has to be said to the user then."""


_shown: set[str] = set()


@runtime_checkable
class Plugin(Protocol):
    """What all of them, and the matchers of ``matching.py``, have in common."""

    name: str
    licence: str


def show_licence(plugin: Plugin) -> None:
    """Tell the user, once per name, which weights are about to be used and under which licence."""
    if plugin.name not in _shown:
        _shown.add(plugin.name)
        level = logging.INFO if plugin.licence == NO_WEIGHTS else logging.WARNING
        log.log(level, "%s: its weights come under: %s", plugin.name, plugin.licence)
