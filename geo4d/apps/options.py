"""Options of commands as their help shows them: what a value is, in a word, in place of the name of its type."""

from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro

CONFIG = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
"""For tyro: no ``{None}|`` before values, and no ``--x, --no-x`` pairs: the flag is the one that changes the default."""

METAVARS = {
    **{"video": "VIDEO", "result": "OUT", "benchmark": "BENCHMARK", "stage": "STAGE", "sources": "SOURCE"},
    **{"output": "OUT", "json": "FILE", "times": "FILE", "trajectory": "FILE", "ground_truth": "FOLDER"},
    **{"root": "FOLDER", "roots": "FOLDER", "predictions": "FOLDER", "plots": "FOLDER", "depth": "FOLDER"},
    **{
        "shards": "FOLDER",
        "prior_cache": "FOLDER",
        "name": "NAME",
        "model": "NAME",
        "model_option": "NAME=VALUE",
    },
    **{
        "device": "DEVICE",
        "topic": "TOPIC",
        "pictures": "PATTERN",
        "output_size": "SIZE",
        "wide_windows": "KIND",
    },
    **{"value_range": "LOW HIGH", "intrinsics": "FX FY CX CY", "distortion": "MODEL:K1,K2,..."},
    **{"track_size": "WIDTH HEIGHT", "size": "HEIGHT WIDTH", "fov_deg": "DEGREES", "depth_unit": "METRES"},
    **{
        "time_offset": "SECONDS",
        "max_size": "PIXELS",
        "fps": "RATE",
        "minutes": "MINUTES",
        "mask_radius": "SHARE",
    },
    **{"decay": "SHARE", "host": "ADDRESS", "port": "PORT", "origins": "ADDRESS"},
}
"""Option -> what its value is; elsewhere it is said by its type."""

_BY_TYPE = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}

_Arg = type(tyro.conf.arg())


def readable(options: type) -> type:
    """The same options with metavars; an instance is one of ``options``, too, but equal to none: see ``declared``.

    A field keeps the metavar that it names, and the choices that its type has.
    """
    hints = get_type_hints(options, include_extras=True)
    made: list[tuple[str, Any, Field[Any]]] = []
    for one in fields(options):
        hint = _named(one.name, hints[one.name])
        default: Any = one.default
        factory: Any = one.default_factory
        inner = _settings(hint)
        if inner is not None:
            factory = readable(inner)
            hint = Annotated[(factory, *hint.__metadata__)] if get_origin(hint) is Annotated else factory
        if hint is not hints[one.name]:
            made.append((one.name, hint, _field(default, factory)))
    space = {"declared_as": options}
    return make_dataclass(
        options.__name__, made, bases=(options,), namespace=space, frozen=True, kw_only=True
    )


def declared(found: Any) -> Any:
    """Options that were parsed by a class of ``readable``, with the settings in them, as the declared classes."""
    values = {one.name: getattr(found, one.name) for one in fields(found)}
    made = {name: declared(value) if is_dataclass(value) else value for name, value in values.items()}
    return getattr(type(found), "declared_as", type(found))(**made)


def _field(default: Any, factory: Any) -> "Field[Any]":
    if factory is not MISSING:
        return field(default_factory=factory)
    return field() if default is MISSING else field(default=default)


def _settings(hint: Any) -> type | None:
    """The class of settings that a field holds, if any."""
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return inner if isinstance(inner, type) and is_dataclass(inner) else None


def _named(name: str, hint: Any) -> Any:
    base, extras = (hint, ()) if get_origin(hint) is not Annotated else (get_args(hint)[0], hint.__metadata__)
    word = METAVARS.get(name) if _takes_text(base) else None
    word = word or _BY_TYPE.get(_element(_only(base)))
    if word is None:
        return hint
    before: Any = next((extra for extra in extras if isinstance(extra, _Arg)), None)
    if before is None:
        return Annotated[hint, tyro.conf.arg(metavar=word)]
    if before.metavar is not None or before.constructor_factory is not None:
        return hint
    others = tuple(extra for extra in extras if extra is not before)
    return Annotated[(base, *others, replace(before, metavar=word))]


def _only(hint: Any) -> Any:
    """The one type beside None, or the hint itself."""
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not NoneType]
        return parts[0] if len(parts) == 1 else hint
    return hint


def _element(hint: Any) -> Any:
    """The type of one value of any number of them, or the hint itself."""
    parts = get_args(hint)
    return parts[0] if get_origin(hint) is tuple and parts[1:] == (Ellipsis,) else hint


def _takes_text(hint: Any) -> bool:
    """Whether values are free: text, numbers or paths, alone or several; not one of a few words."""
    hint = _only(hint)
    if get_origin(hint) is tuple:
        return all(part is Ellipsis or _takes_text(part) for part in get_args(hint))
    return hint in _BY_TYPE


def help_text(about: str, examples: Sequence[str]) -> str:
    """What ``--help`` says first: what the command does, and examples of it."""
    plain = about.replace("``", "").strip()
    return "\n".join([plain, "", "Examples:", *(f"  {line}" for line in examples)])
