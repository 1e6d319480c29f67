"""MoGe as a predictor (every frame by itself) and as the prior of other predictors."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geo4d.models.base import PredictorInfo
from geo4d.models.devices import DTYPES
from geo4d.models.moge.config import MoGeOptions
from geo4d.models.moge.infer import MoGeMaps, image_size, infer_moge
from geo4d.models.moge.model import MoGe
from geo4d.models.moge.weights import find_moge, load_moge
from geo4d.models.store.identity import check_weights
from geo4d.models.store.sources import SOURCES
from geo4d.types import EvidenceMaps, Prediction, Window
from geo4d.video.io import fit_size


class MoGePrior:
    """Points and mask of every frame by itself, at the size of the window's frames."""

    name = "moge"
    frames_alone = True

    def __init__(self, network: MoGe, options: MoGeOptions, device: torch.device | str = "cpu") -> None:
        self.options = options
        self.network = network.cast(DTYPES[options.dtype]).to(device)

    def maps(self, window: Window) -> MoGeMaps:
        """All maps of a window's frames, on the CPU."""
        found = infer_moge(self.network, window.rgb, self.options)
        return MoGeMaps(*(value.cpu() for value in vars(found).values()))

    def __call__(self, window: Window) -> EvidenceMaps:
        found = self.maps(window)
        return EvidenceMaps(
            points=found.points, mask=found.mask, scale_kind="scale", intrinsics=found.intrinsics
        )


class MoGePredictor:
    """The per-frame baseline: windows of one frame, each with a scale of its own, no cameras."""

    def __init__(
        self, prior: MoGePrior, weights_sha256: str, weights_compared: Mapping[str, int] | None = None
    ) -> None:
        self.prior = prior
        self.info = PredictorInfo(
            name="moge",
            description="MoGe-1, every frame by itself (baseline)",
            licence=SOURCES["moge"].licence,
            weights_sha256=weights_sha256,
            weights_compared=weights_compared,
            window_length=1,
            window_stride=1,
            gives_poses=False,
            scale_kind="scale",
            smaller="--model-option batch=1, or --model-option resolution_level=0",
            config=dataclasses.asdict(prior.options),
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """The source, reduced to ``max_side`` in its own proportions; the network chooses its image itself."""
        return fit_size(source_size, self.prior.options.max_side)

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Activations of one batch: about 1.3 kB per pixel of the network's image in float32, half in 16 bits."""
        source_size = self.size_for(source_size)
        height, width = image_size(source_size, self.prior.network.config, self.prior.options)
        bytes_per_value = torch.finfo(DTYPES[self.prior.options.dtype]).bits // 8
        maps = 64 * source_size[0] * source_size[1]
        return self.prior.options.batch * (height * width * 320 * bytes_per_value + maps)

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """Nothing to learn from the whole video."""
        return {}

    def predict(
        self,
        window: Window,
        *,
        seed: int,
        evidence: EvidenceMaps | None = None,
        context: Mapping[str, Tensor] | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """Camera-frame points of every frame. There is no noise: ``seed`` changes nothing; evidence is not used.

        Raises:
            ValueError: ``evidence`` is given.
        """
        if evidence is not None:
            raise ValueError("expected no evidence: MoGe does not take any")
        found = self.prior.maps(window)
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=found.points,
            point_frame="camera",
            point_scale_kind="scale",
            point_z_offset=0.0,
            intrinsics=found.intrinsics,
            valid=found.mask & (found.depth > 0),
            seed=seed,
            provenance={"predictor": "moge", "weights_sha256": self.info.weights_sha256},
        )


def load(
    name: str = "moge",
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> MoGePredictor:
    """Load MoGe-1 as a predictor.

    Args:
        weights: ``model.pt`` or its folder; None: the local model store.
        device: None: a CUDA device if there is one, else the CPU.
        dtype: see ``MoGeOptions``; None: float32.
        options: fields of ``MoGeOptions``.
    Raises:
        ValueError: unknown option.
        CheckpointError: weights are missing, foreign or unsafe.
    """
    file = find_moge(weights)
    known = {field.name for field in dataclasses.fields(MoGeOptions)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"expected options of {sorted(known)}, got also {unknown}")
    settings = MoGeOptions(**{**({"dtype": dtype} if dtype else {}), **options})
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    checked = check_weights([file])
    prior = MoGePrior(load_moge(file), settings, place)
    return MoGePredictor(prior, checked.sha256[file], checked.compared)
