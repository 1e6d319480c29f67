"""The predictor ``brightness``: bright is near. A depth network of single pictures, with everything but a network.

``geo4d.models.monodepth`` ties the answers to the cameras from tracks and makes them steady; put your network into
``Brightness.__call__``. What sees several frames at once, or gives cameras itself, is written to the protocol
``geo4d.models.base.Predictor`` instead: docs/adapters.md.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from geo4d.models.monodepth.network import FrameDepths
from geo4d.models.monodepth.pipeline import DepthPredictor, MonoDepthConfig


class Brightness:
    """The network: ``affine`` says that scale and shift of its disparity differ from picture to picture."""

    scale_kind = "affine"

    def __call__(self, rgb: Tensor) -> FrameDepths:
        """Disparity [N, H, W] of pictures [N, H, W, 3] in [0, 1]."""
        return FrameDepths(disparity=rgb.mean(-1))


def load(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> DepthPredictor:
    """What the entry point names: called by ``--model brightness`` with what the user asked for.

    Args:
        name: that of the entry point; results state it.
        weights, device, dtype: from ``--weights``, ``--device``, ``--dtype``.
        options: from ``--model-option NAME=VALUE``.
    Raises:
        ValueError: weights, which this network has none of.
    """
    if weights is not None:
        raise ValueError("expected no weights: brightness has none")
    return DepthPredictor(Brightness(), name=name, licence="Apache-2.0", config=MonoDepthConfig(**options))
