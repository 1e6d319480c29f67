"""Predictors of other packages: entry points of the group ``geo4d.predictors``, and ``package.module:load``."""

from collections.abc import Callable, Iterable, Mapping

from geo4d.errors import PluginError
from geo4d.plugins import entry

DESCRIBED = "a function load(name, *, weights, device, dtype, **options) that makes a predictor"


def plugin_names(known: Iterable[str]) -> list[str]:
    """Names that installed packages offer; none is loaded."""
    return list(entry.plugin_points(entry.PREDICTORS, "a predictor", known))


def plugin_loader(name: str, known: Iterable[str]) -> Callable[..., object] | None:
    """What makes the predictor of a name, checked in what it makes; None where no package offers it.

    Args:
        name: of an entry point, or ``package.module:function``.
        known: names that geo4d has itself.
    Raises:
        PluginError: the code of the package cannot be used.
    """
    module, colon, function = name.partition(":")
    if colon and all(part.isidentifier() for part in [*module.split("."), function]):
        return entry.load_named(name, DESCRIBED)  # type: ignore[no-any-return]
    points = entry.plugin_points(entry.PREDICTORS, "a predictor", known)
    if name not in points:
        return None
    return entry.load_point(points[name], "the predictor", None, DESCRIBED)  # type: ignore[no-any-return]


def call_plugin(load: Callable[..., object], name: str, words: Mapping[str, object]) -> object:
    """What ``load(name, **words)`` makes.

    Raises:
        PluginError: it does not take what a loader is given; any other error is its own.
    """
    try:
        return load(name, **words)
    except TypeError as error:
        given = ", ".join(f"{word}={value!r}" for word, value in words.items() if value is not None)
        raise PluginError(
            f"expected {name} to be {DESCRIBED}; called with {given or 'nothing but its name'} it says: {error}"
        ) from error


def require_predictor(made: object, name: str, protocol: type) -> None:
    """
    Raises:
        PluginError: what a plug-in made lacks a part of the protocol.
    """
    if not isinstance(made, protocol):
        parts = sorted(part for part in dir(protocol) if not part.startswith("_")) + ["info"]
        lacking = [part for part in dict.fromkeys(parts) if not hasattr(made, part)]
        raise PluginError(
            f"expected {name} to make a predictor (geo4d.models.base.Predictor), got {type(made).__name__} without "
            f"{', '.join(lacking)}"
        )
