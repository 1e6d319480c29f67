"""Window predictions on disk between the predictor and the fusion.

A run keeps no prediction in memory: each window is written as one compressed file as soon as it is computed, and the
fusion reads windows when it needs them. A killed run finds its finished windows here. Predictions always pass through
the file, so that a resumed run sees exactly what an uninterrupted one sees.
"""

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from geo4d.config import Precision
from geo4d.errors import InputError
from geo4d.formats.arrays import load_arrays, load_attributes, save_arrays
from geo4d.types import Prediction

log = logging.getLogger(__name__)

RAY_GRID = 40
"""Longest side of stored ray maps: rays of a pinhole camera are smooth."""

KEPT = 2
"""Decoded predictions that are kept; the fusion holds those that it still needs itself."""

EVIDENCE = -1
"""In place of a try: what motion says about the window, as one more prediction."""

_HALVED = ("point_map", "point_uncertainty", "disparity", "disparity_uncertainty")
_MASKS = ("valid", "sky")
_CARRY = "carry."


def window_bytes(num_frames: int, size: tuple[int, int], precision: Precision) -> int:
    """Most bytes that one spooled window with points, both uncertainties, disparity, masks and rays can take."""
    values = 6 * (2 if precision == "float16" else 4)
    rays = RAY_GRID * RAY_GRID * 6 * 4
    return num_frames * (size[0] * size[1] * values + size[0] * size[1] // 4 + rays)


class Spool:
    """Predictions of a run in a folder, one file per window and try.

    Args:
        folder: where the files are.
        precision: of maps: ``float16`` (relative error 5e-4; each array is scaled by a power of two first, so no
            unit overflows) or ``float32``.
    """

    def __init__(self, folder: Path, precision: Precision = "float16") -> None:
        self.folder = folder
        self.precision = precision
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, window: int, attempt: int = 0) -> Path:
        """File of a window's prediction at one try, or of its evidence (``attempt`` = ``EVIDENCE``)."""
        name = f"evidence_{window:06d}" if attempt == EVIDENCE else f"window_{window:06d}_try{attempt}"
        return self.folder / f"{name}.zarr.zip"

    def write(self, prediction: Prediction, attempt: int = 0) -> int:
        """Store a prediction; returns its size in bytes.

        Raises:
            OutputError: not writable, or the disk is full.
        """
        arrays, attributes = _encode(prediction, self.precision)
        return save_arrays(self.path(prediction.window_index, attempt), arrays, attributes)

    def read(self, window: int, attempt: int = 0) -> Prediction | None:
        """A stored prediction, or None when it is not there or its file is damaged."""
        path = self.path(window, attempt)
        if not path.is_file():
            return None
        try:
            return _decode(*load_arrays(path))
        except InputError as error:
            log.warning("%s; the window is computed again", error)
            return None

    def evidence_windows(self) -> list[int]:
        """Numbers of the windows that motion says something about, in order."""
        return sorted(
            int(path.name.split("_")[1].split(".")[0]) for path in self.folder.glob("evidence_*.zarr.zip")
        )

    def sequence(self, windows: Sequence[tuple[int, int]], first_frame: int = 0) -> "SpooledPredictions":
        """Chosen (window, try) pairs as a lazy sequence; frame indices count from ``first_frame``."""
        return SpooledPredictions(self, windows, first_frame)


class SpooledPredictions(Sequence[Prediction]):
    """Predictions that are read from disk when asked for; the last few are kept."""

    def __init__(self, spool: Spool, windows: Sequence[tuple[int, int]], first_frame: int) -> None:
        self._spool = spool
        self._windows = list(windows)
        self._first_frame = first_frame
        self._cache: OrderedDict[int, Prediction] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> "SpooledPredictions": ...

    def __getitem__(self, index: int | slice) -> "Prediction | SpooledPredictions":
        if isinstance(index, slice):
            return SpooledPredictions(self._spool, self._windows[index], self._first_frame)
        position = range(len(self))[index]
        if position in self._cache:
            self._cache.move_to_end(position)
            return self._cache[position]
        window, attempt = self._windows[position]
        prediction = self._spool.read(window, attempt)
        if prediction is None:
            raise InputError(f"{self._spool.path(window, attempt)} is gone; run again with --resume")
        if self._first_frame:
            prediction = dataclasses.replace(
                prediction, frame_indices=prediction.frame_indices - self._first_frame
            )
        self._cache[position] = prediction
        while len(self._cache) > KEPT:
            self._cache.popitem(last=False)
        return prediction

    def provenance(self) -> dict[int, dict[str, Any]]:
        """What every prediction says of how it came about, by number of the window; no maps are read.

        Raises:
            InputError: a file is gone or damaged.
        """
        return {
            window: load_attributes(self._spool.path(window, attempt))["provenance"]
            for window, attempt in self._windows
        }


def _encode(prediction: Prediction, precision: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays: dict[str, np.ndarray] = {}
    scales: dict[str, float] = {}
    for name, tensor in prediction.tensors().items():
        if name == "ray_map":
            tensor = _coarse_rays(tensor)
        tensor = tensor.detach().cpu()
        if name in _HALVED and precision == "float16":
            # torch converts as numpy does, in a fraction of the time
            scales[name] = _power_of_two(tensor)
            arrays[name] = (tensor / scales[name]).half().numpy()
        elif name in _MASKS:
            arrays[name] = np.packbits(tensor.numpy(), axis=-1)
        else:
            arrays[name] = tensor.numpy()
    dtypes = {}
    for name, tensor in (prediction.carry or {}).items():
        dtypes[name] = str(tensor.dtype).removeprefix("torch.")
        # bfloat16 has no numpy type; float32 holds it without loss.
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()
        arrays[_CARRY + name] = array
    plain = {
        f.name: value
        for f in dataclasses.fields(prediction)
        if not isinstance(value := getattr(prediction, f.name), Tensor)
        and f.name not in ("carry", "provenance")
    }
    width = prediction.size[1]
    return arrays, {
        "fields": plain,
        "provenance": dict(prediction.provenance),
        "scales": scales,
        "carry": dtypes if prediction.carry is not None else None,
        "width": width,
    }


def _decode(arrays: dict[str, np.ndarray], attributes: dict[str, Any]) -> Prediction:
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if name.startswith(_CARRY):
            continue
        if name in _MASKS:
            bits = np.unpackbits(array, axis=-1, count=attributes["width"])
            tensors[name] = torch.from_numpy(bits.view(bool))
        elif name in attributes["scales"]:
            tensors[name] = torch.from_numpy(array).float().mul_(attributes["scales"][name])
        else:
            tensors[name] = torch.from_numpy(array)
    carry = None
    if attributes["carry"] is not None:
        carry = {
            name: torch.from_numpy(np.array(arrays[_CARRY + name])).to(getattr(torch, dtype))
            for name, dtype in attributes["carry"].items()
        }
    fields = {name: value for name, value in attributes["fields"].items() if name not in tensors}
    values: dict[str, Any] = {**fields, **tensors}
    return Prediction(**values, provenance=attributes["provenance"], carry=carry)


def _power_of_two(tensor: Tensor) -> float:
    """A power of two that brings the largest value to at most 2**14; scaling by it loses nothing."""
    largest = (
        float(torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0).abs().max())
        if tensor.numel()
        else 0.0
    )
    return 2.0 ** (np.frexp(largest)[1] - 14) if largest > 0 else 1.0


def _coarse_rays(rays: Tensor) -> Tensor:
    """Rays averaged over blocks; unit directions, moments of the same ray: m = o x d stays true."""
    height, width = rays.shape[1:3]
    if max(height, width) <= RAY_GRID:
        return rays.float()
    factor = RAY_GRID / max(height, width)
    size = (max(round(height * factor), 1), max(round(width * factor), 1))
    coarse = adaptive_avg_pool2d(rays.float().movedim(-1, 1), size).movedim(1, -1)
    return coarse / coarse[..., :3].norm(dim=-1, keepdim=True).clamp_min(1e-12)
