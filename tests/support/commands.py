"""The options of every command, read from the dataclass that its command line is made of."""

import dataclasses
import types
import typing
from importlib import import_module

import tyro

_CLASSES = {
    name: f"{name.capitalize()}Options" for name in ("batch", "data", "evaluate", "export", "models", "pose")
}
_CLASSES |= {
    name: f"{name.capitalize()}Options" for name in ("reconstruct", "report", "serve", "train", "view")
}


def options_of(command: str) -> dict[str, int]:
    """Name of an option -> how many values it takes; those that are on by themselves stand as ``--no-NAME``."""
    module = import_module(f"geo4d.apps.commands.{command}")
    return _of_class(getattr(module, _CLASSES[command]))


def _of_class(of: type) -> dict[str, int]:
    found: dict[str, int] = {}
    hints = typing.get_type_hints(of, include_extras=True)
    for field in dataclasses.fields(of):
        kind, marks = hints[field.name], []
        while typing.get_origin(kind) is typing.Annotated:
            kind, *more = typing.get_args(kind)
            marks += more
        if tyro.conf.Positional in marks or any("Positional" in str(mark) for mark in marks):
            continue
        if dataclasses.is_dataclass(kind):
            found |= _of_class(typing.cast(type, kind))
            continue
        name = f"--{field.name.strip('_').replace('_', '-')}"
        if kind is bool:
            found[name.replace("--", "--no-", 1) if field.default is True else name] = 0
        else:
            found[name] = _num_values(kind)
    return found


def _num_values(kind: typing.Any) -> int:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return max(_num_values(one) for one in typing.get_args(kind))
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and Ellipsis not in inner:
        return len(inner)
    return 1
