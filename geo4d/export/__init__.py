"""A ``Reconstruction`` as the files of other tools: a dict of formats, each one function.

Every export is complete or absent, works frame by frame in bounded memory, and states its conventions: in the file where
the format has room, and in a ``README.txt`` beside the files of a folder. The names are loaded on first use: the list of
formats needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geo4d.export.common import chosen_frames, conventions
    from geo4d.export.config import ExportConfig, Reference, Up
    from geo4d.export.format import Format
    from geo4d.export.formats import FORMATS, find_format, format_names
    from geo4d.export.nerfstudio import nerfstudio_scale
    from geo4d.export.points import iter_point_clouds
    from geo4d.export.saving import most_bytes, save

_HOMES = {
    "FORMATS": "formats",
    "ExportConfig": "config",
    "Format": "format",
    "Reference": "config",
    "Up": "config",
    "chosen_frames": "common",
    "conventions": "common",
    "find_format": "formats",
    "format_names": "formats",
    "iter_point_clouds": "points",
    "most_bytes": "saving",
    "nerfstudio_scale": "nerfstudio",
    "save": "saving",
}

__all__ = [
    "FORMATS",
    "ExportConfig",
    "Format",
    "Reference",
    "Up",
    "chosen_frames",
    "conventions",
    "find_format",
    "format_names",
    "iter_point_clouds",
    "most_bytes",
    "nerfstudio_scale",
    "save",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"geo4d.export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'geo4d.export' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
