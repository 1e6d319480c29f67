"""MoGe-2 as a predictor: depth in metres of single pictures, under the cameras from tracks."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.models.devices import DTYPES, default_device
from geo4d.models.moge.config import MoGeOptions, Precision
from geo4d.models.moge.infer import infer_moge2
from geo4d.models.moge.metric_model import MoGe2
from geo4d.models.moge.weights import find_moge, load_moge2
from geo4d.models.monodepth.network import FrameDepths
from geo4d.models.monodepth.pipeline import DepthPredictor, MonoDepthConfig
from geo4d.models.store.identity import check_weights
from geo4d.models.store.sources import SOURCES
from geo4d.types import ScaleKind

NEAREST = 1e-2
"""Metres, below which no depth is believed."""
OWN = ("resolution_level", "solver", "fov_x_deg", "batch")
"""Fields of ``MoGeOptions`` that are options here, too."""


class MoGe2Depths:
    """The network as ``models.monodepth`` asks it: disparity in 1/m, field of view, and where no surface is seen."""

    scale_kind: ScaleKind = "metric"

    def __init__(self, network: MoGe2, options: MoGeOptions, device: torch.device | str = "cpu") -> None:
        self.options = options
        self.network = network.cast(DTYPES[options.dtype]).to(device)

    def __call__(self, rgb: Float[Tensor, "N H W 3"]) -> FrameDepths:
        """Depths of pictures in [0, 1]."""
        found = infer_moge2(self.network, rgb, self.options)
        disparity = 1 / found.depth.clamp(min=NEAREST)
        return FrameDepths(disparity.cpu(), found.intrinsics.cpu(), ~found.mask.cpu())


def load(
    name: str = "moge2",
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: Precision | None = None,
    **options: Any,
) -> DepthPredictor:
    """Load MoGe-2 as a predictor.

    Args:
        weights: ``model.pt`` or its folder; None: the local model store.
        device: None: a CUDA device if there is one, else the CPU.
        dtype: None: float32.
        options: fields of ``MonoDepthConfig``, and ``OWN`` of ``MoGeOptions``.
    Raises:
        ValueError: unknown option.
        CheckpointError: weights are missing, foreign or unsafe.
    """
    shared = [field.name for field in dataclasses.fields(MonoDepthConfig)]
    if unknown := sorted(set(options) - {*shared, *OWN}):
        raise ValueError(f"expected options of {sorted([*shared, *OWN])}, got also {unknown}")
    if dtype is not None and dtype not in get_args(Precision):
        raise ValueError(f"expected one of {', '.join(get_args(Precision))}, got {dtype!r}")
    own = MoGeOptions(dtype=dtype or "float32", **{k: v for k, v in options.items() if k in OWN})
    file = find_moge(weights, "moge2")
    checked = check_weights([file])
    network = MoGe2Depths(load_moge2(file), own, device or default_device())
    tokens = network.network.config.num_tokens_range[1]
    return DepthPredictor(
        network,
        name=name,
        description="MoGe-2, depth in metres of single pictures, under the cameras from tracks",
        licence=SOURCES["moge2"].licence,
        weights_sha256=checked.sha256[file],
        weights_compared=checked.compared,
        config=MonoDepthConfig(**{k: v for k, v in options.items() if k in shared}),
        # Of the finest level, sixteen times as wide as the patches: some hundred float32 numbers for each of its pixels.
        memory_bytes=tokens * 256 * 400 * own.batch,
        settings={"dtype": own.dtype, **{k: getattr(own, k) for k in OWN}},
    )
