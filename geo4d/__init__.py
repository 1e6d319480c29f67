"""geo4d: monocular video in, 4D geometry out.

The public names are loaded on first use, so that ``import geo4d`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geo4d.models.base import load_predictor
    from geo4d.run.reconstruct import load, reconstruct
    from geo4d.types import Cameras, EvidenceMaps, Prediction, Reconstruction, Window
    from geo4d.video.io import Video

__version__ = "0.1.0"

_HOMES = {
    "reconstruct": "geo4d.run.reconstruct",
    "load": "geo4d.run.reconstruct",
    "load_predictor": "geo4d.models.base",
    "Video": "geo4d.video.io",
    "Window": "geo4d.types",
    "Prediction": "geo4d.types",
    "EvidenceMaps": "geo4d.types",
    "Cameras": "geo4d.types",
    "Reconstruction": "geo4d.types",
}

__all__ = [
    "Cameras",
    "EvidenceMaps",
    "Prediction",
    "Reconstruction",
    "Video",
    "Window",
    "__version__",
    "load",
    "load_predictor",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'geo4d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
