"""Frames of a result into its zarr arrays, one after the other, then its cameras and metadata."""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geo4d import __version__
from geo4d.config import Precision
from geo4d.errors import OutputError
from geo4d.formats.arrays import create_frames, create_whole
from geo4d.formats.files import output_errors, write_json
from geo4d.geometry.poses import first_camera_world
from geo4d.results.layout import WORLDS, World, plain
from geo4d.results.manifest import ARRAYS, DIAGNOSTICS, FORMAT, MANIFEST, SUMS, VERSION, manifest_sha256
from geo4d.types import CONVENTIONS, FrameMaps

if TYPE_CHECKING:
    pass


_TORCH_DTYPES = {"float16": torch.float16, "float32": torch.float32}


class StoreWriter:
    """Writes the arrays of a result, one chunk per frame.

    Args:
        folder: new folder for the result.
        num_frames: of the whole result.
        size: (height, width) of the maps.
        precision: of depth, confidence and dynamic. float16 holds depth to 5e-4; depths above 65,504 units are
            clipped there.
    """

    def __init__(self, folder: Path, num_frames: int, size: tuple[int, int], precision: Precision) -> None:
        import zarr
        from zarr.storage import LocalStore

        from geo4d.formats.checksums import ChecksummedStore, Checksums

        self.folder = folder
        self.num_frames = num_frames
        self.size = size
        self.dtype = np.dtype(precision)
        self._sums = Checksums()
        with output_errors(folder):
            store = ChecksummedStore(LocalStore(folder / ARRAYS), self._sums, ARRAYS + "/")
            self._group = zarr.open_group(store, mode="w", zarr_format=3)
        self._arrays: dict[str, Any] = {}
        self._written: dict[str, int] = {}
        self._creating = threading.Lock()

    def write(self, frame: FrameMaps, rgb: np.ndarray | None = None) -> None:
        """Store one frame; frames come in any order, each once, from any thread.

        Args:
            frame: maps at the size of the store.
            rgb: [H, W, 3] uint8, for sources that cannot be read again.
        Raises:
            OutputError: not writable, or the disk is full.
        """
        depth = frame.depth.detach()
        if tuple(depth.shape) != self.size:
            raise ValueError(f"expected maps of {self.size}, got {tuple(depth.shape)}")
        largest = float(np.finfo(self.dtype).max)
        depth = torch.where(torch.isfinite(depth), depth.clamp(max=largest), depth)
        self._put("depth", frame.frame_index, _as(depth, self.dtype), np.nan)
        self._put("confidence", frame.frame_index, _as(frame.confidence, self.dtype), 0)
        if frame.dynamic is not None:
            self._put("dynamic", frame.frame_index, _as(frame.dynamic, self.dtype), np.nan)
        if rgb is not None:
            self._put("rgb", frame.frame_index, rgb, 0)

    def finish(
        self,
        per_frame: Mapping[str, np.ndarray],
        manifest: Mapping[str, Any],
        diagnostics: Mapping[str, Any],
        *,
        world: World = "first camera",
    ) -> None:
        """Write what is small: per-frame values and the two JSON files.

        Args:
            per_frame: intrinsics, times_s, source_frames and, where known, c2w, scene, reliable; frames first.
            world: of the stored c2w. ``first camera``: that of each scene, whatever world they come in. ``given``: the
                poses were given, and their world stays.
        Raises:
            OutputError: a frame is missing, not writable, or the disk is full.
        """
        for name, count in self._written.items():
            if count != self.num_frames:
                raise OutputError(f"{self.folder}: only {count} of {self.num_frames} frames have {name}")
        if "c2w" in per_frame:
            manifest = {**manifest, "world": WORLDS[world]}
            if world == "first camera":
                per_frame = {**per_frame, "c2w": _from_first_camera(per_frame["c2w"], per_frame.get("scene"))}
        with output_errors(self.folder):
            for name, values in per_frame.items():
                create_whole(self._group, name, values, meaning=_meaning(name))
            text = {
                "format": FORMAT,
                "version": VERSION,
                "geo4d": __version__,
                "num_frames": self.num_frames,
                "size": {"height": self.size[0], "width": self.size[1]},
                "arrays": {name: _meaning(name) for name in [*self._arrays, *per_frame]},
                **manifest,
            }
            write_json(self.folder / DIAGNOSTICS, plain(diagnostics))
            self._sums[DIAGNOSTICS] = hashlib.sha256((self.folder / DIAGNOSTICS).read_bytes()).digest()
            sums = self._sums.text().encode()
            (self.folder / SUMS).write_bytes(sums)
            text = {**plain(text), "sums_sha256": hashlib.sha256(sums).hexdigest()}
            write_json(self.folder / MANIFEST, {**text, "sha256": manifest_sha256(text)})

    def _put(self, name: str, index: int, values: np.ndarray, fill: float) -> None:
        with output_errors(self.folder):
            with self._creating:
                if name not in self._arrays:
                    shape = (self.num_frames, *values.shape)
                    self._arrays[name] = create_frames(
                        self._group, name, shape, values.dtype, fill, meaning=_meaning(name)
                    )
            self._arrays[name][index] = values
        with self._creating:
            self._written[name] = self._written.get(name, 0) + 1


def _meaning(name: str) -> str:
    return CONVENTIONS.get(name, "colour, uint8")


def _from_first_camera(c2w: np.ndarray, scene: np.ndarray | None) -> np.ndarray:
    moved = first_camera_world(
        torch.from_numpy(np.asarray(c2w, np.float64)), None if scene is None else torch.from_numpy(scene)
    )
    return moved.numpy().astype(c2w.dtype)


def _as(tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    # torch rounds as numpy does, in a twentieth of the time.
    return tensor.detach().to("cpu", _TORCH_DTYPES[dtype.name]).numpy()
