"""The result of a run on disk: written frame by frame, complete or absent, read back lazily.

A result is a folder with

- ``arrays.zarr``: a zarr v3 group, one chunk per frame;
- ``manifest.json``: what the arrays are, their conventions and units, source and its hash, provenance;
- ``diagnostics.json``: fusion terms, windows dropped and why, timings.

A run works in the hidden folder ``.NAME.geo4d-run`` beside ``NAME``, under a lock, and renames the finished result into
place as its last step.
"""

import dataclasses
import json
import logging
import math
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from geo4d import __version__
from geo4d.config import Precision
from geo4d.errors import InputError, OutputError
from geo4d.formats.arrays import create_frames
from geo4d.formats.files import output_errors
from geo4d.geometry.poses import first_camera_world
from geo4d.types import FrameMaps, LazyFrames, Reconstruction
from geo4d.video.io import Video, reopen

log = logging.getLogger(__name__)

FORMAT = "geo4d-result"
VERSION = 1
ARRAYS = "arrays.zarr"
MANIFEST = "manifest.json"
DIAGNOSTICS = "diagnostics.json"

CONVENTIONS = {
    "camera_axes": "OpenCV: +x right, +y down, +z forward",
    "c2w": "camera to world, 4x4, column vectors; translations in the unit of depth; one world per scene (see world)",
    "intrinsics": "3x3, pixels of the stored maps, pixel centres at +0.5",
    "depth": "z-depth; NaN invalid, +inf sky",
    "confidence": "probability of a depth within 10 % once the scene's one factor is known; 0 where invalid",
    "dynamic": "probability that the pixel shows something moving, 0 to 1",
    "times_s": "presentation time in seconds, as the source states it",
    "source_frames": "frame number in the source, from 0",
    "scene": "scene number; a shot cut starts a new scene with a world and a scale of its own",
    "reliable": "false where only rejected windows, or none, saw the frame, no camera was found, or no picture shows",
}


World = Literal["first camera", "given"]

WORLDS: dict[World, str] = {
    "first camera": "the first camera of each scene",
    "given": "that of the given poses",
}


def frame_bytes(size: tuple[int, int], precision: Precision, *, with_rgb: bool = False) -> int:
    """Most bytes that one frame of a result can take on disk: depth, confidence, dynamic (and colour)."""
    return size[0] * size[1] * (3 * (2 if precision == "float16" else 4) + (3 if with_rgb else 0)) + 4096


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

        self.folder = folder
        self.num_frames = num_frames
        self.size = size
        self.dtype = np.dtype(precision)
        with output_errors(folder):
            self._group = zarr.open_group(folder / ARRAYS, mode="w", zarr_format=3)
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
        depth = frame.depth.detach().cpu().numpy()
        if depth.shape != self.size:
            raise ValueError(f"expected maps of {self.size}, got {depth.shape}")
        finite = np.isfinite(depth)
        depth = np.where(finite, np.minimum(depth, np.finfo(self.dtype).max), depth)
        self._put("depth", frame.frame_index, depth.astype(self.dtype), np.nan)
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
                array = self._group.create_array(
                    name, data=values, chunks=values.shape, config={"write_empty_chunks": True}
                )
                array.attrs["meaning"] = CONVENTIONS[name]
            for name, array in self._arrays.items():
                array.attrs["meaning"] = CONVENTIONS.get(name, "colour, uint8")
            text = {
                "format": FORMAT,
                "version": VERSION,
                "geo4d": __version__,
                "num_frames": self.num_frames,
                "size": {"height": self.size[0], "width": self.size[1]},
                "arrays": {
                    name: CONVENTIONS.get(name, "colour, uint8") for name in [*self._arrays, *per_frame]
                },
                **manifest,
            }
            write_json(self.folder / DIAGNOSTICS, diagnostics)
            write_json(self.folder / MANIFEST, text)

    def _put(self, name: str, index: int, values: np.ndarray, fill: float) -> None:
        with output_errors(self.folder):
            with self._creating:
                if name not in self._arrays:
                    shape = (self.num_frames, *values.shape)
                    self._arrays[name] = create_frames(self._group, name, shape, values.dtype, fill)
            self._arrays[name][index] = values
        with self._creating:
            self._written[name] = self._written.get(name, 0) + 1


class Workspace:
    """The hidden folder of a run, locked while the run lives.

    Use as a context manager. On success call ``publish``; on an error the finished windows stay for a later resume, and
    a run that finished none leaves nothing.

    Args:
        output: where the result will be; None: a temporary folder that lives as long as the result.
        settings: what decides the windows of the run; a resumed run must agree.
        overwrite: replace an existing result, or forget an unfinished run.
        resume: go on with an unfinished run.
    Raises:
        OutputError: exists already, is being written by another run, was begun with other settings, not writable.
    """

    def __init__(
        self,
        output: Path | None,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self._temporary = TemporaryFolder() if output is None else None
        folder = self._temporary.path if self._temporary is not None else None
        self.output = folder / "result" if folder is not None else Path(output or "")
        self.settings = plain(settings)
        self.overwrite = overwrite
        self.resume = resume
        self.folder = run_folder(self.output)
        self.windows = self.folder / "windows"
        self.result = self.folder / "result"
        self._lock: Any = None
        self._done = False

    def __enter__(self) -> "Workspace":
        check_output(self.output, overwrite=self.overwrite, resume=self.resume)
        with output_errors(self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            try:
                self._begin()
            except BaseException:
                self._lock.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None and self._temporary is None and any(self.windows.glob("window_*")):
            shutil.rmtree(self.result, ignore_errors=True)
            log.warning(
                "the finished windows are kept in %s; run again with --resume to go on, or with --overwrite",
                self.folder,
            )
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def publish(self, *, keep_windows: bool = False) -> Reconstruction:
        """Rename the finished result into place and open it."""
        with output_errors(self.output):
            if keep_windows:
                self.windows.replace(self.result / "windows")
            if self.output.exists() and any(self.output.iterdir()):
                self.output.replace(self.folder / "replaced")
            self.result.replace(self.output)
        return load_result(self.output, keep=self._temporary)

    def _take_lock(self) -> Any:
        """The open, locked file; the system frees it when the process ends, however it ends."""
        while True:
            self.folder.mkdir(exist_ok=True)
            path = self.folder / "lock"
            try:
                file = path.open("a+")
            except FileNotFoundError:
                continue  # another run just finished and removed its folder
            if not _lock(file):
                file.seek(0)
                owner = file.read().strip() or "unknown"
                file.close()
                raise OutputError(
                    f"another run (process {owner}) is writing {self.output}; wait for it or choose another output"
                )
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                return file
            file.close()

    def _begin(self) -> None:
        replaced = self.folder / "replaced"
        if replaced.exists() and not self.output.exists():
            replaced.replace(self.output)  # a kill came between the two renames
        begun = self.folder / "settings.json"
        shutil.rmtree(self.result, ignore_errors=True)
        if begun.exists() and not self.overwrite:
            if not self.resume:
                count = len(list(self.windows.glob("window_*")))
                raise OutputError(
                    f"an unfinished run of {self.output} exists ({count} windows done); "
                    "--resume goes on with it, --overwrite starts again"
                )
            different = _differences(json.loads(begun.read_text()), self.settings)
            if different:
                raise OutputError(
                    f"the unfinished run of {self.output} has other settings ({'; '.join(different)}); "
                    "repeat them, or start again with --overwrite"
                )
        else:
            for leftover in self.folder.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                elif leftover.name != "lock":
                    leftover.unlink()
        self.windows.mkdir(exist_ok=True)
        for leftover in self.windows.glob(".*"):
            leftover.unlink()
        write_json(begun, self.settings)


def run_folder(output: Path) -> Path:
    """Where a run that will give ``output`` works."""
    return output.parent / f".{output.name}.geo4d-run"


def check_output(output: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output that must not be replaced.

    Raises:
        OutputError: it exists and ``overwrite`` is not given, or it is not a result of ours.
    """
    if not output.name:
        raise OutputError(f"expected a folder name for the result, got {str(output)!r}")
    ancestor = next(folder for folder in output.absolute().parents if folder.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise OutputError(f"cannot write {output}: {ancestor} is not a folder that you may write to")
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir():
        raise OutputError(f"{output} exists and is not a folder; choose another output")
    try:
        is_empty = not any(output.iterdir())
    except OSError as error:
        raise OutputError(f"{output} cannot be read: {error.strerror}") from error
    if is_empty:
        return
    if not is_result(output):
        raise OutputError(
            f"{output} exists and is not a geo4d result; it is left alone, choose another output"
        )
    if not overwrite:
        hint = (
            "is complete already; load it, or start again with --overwrite"
            if resume
            else ("exists; choose another output, or replace it with --overwrite")
        )
        raise OutputError(f"{output} {hint}")


def is_result(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_text()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def load_result(path: str | Path, keep: object = None) -> Reconstruction:
    """Open a result; maps are read when they are sliced.

    Args:
        keep: an object that must live as long as the arrays.
    Raises:
        OutputError: no result there, unfinished, incomplete, or of a newer format.
    """
    import zarr

    path = Path(path)
    if not path.is_dir():
        unfinished = (
            " (an unfinished run is there; finish it with --resume)" if run_folder(path).exists() else ""
        )
        raise OutputError(f"expected a geo4d result at {path}, found nothing{unfinished}")
    if not is_result(path):
        raise OutputError(f"{path} is not a geo4d result: it has no {MANIFEST} of ours")
    manifest = json.loads((path / MANIFEST).read_text())
    if manifest["version"] > VERSION:
        raise OutputError(
            f"{path} was written by geo4d {manifest['geo4d']}, newer than this one; update geo4d"
        )
    try:
        group: Any = zarr.open_group(path / ARRAYS, mode="r")
        arrays = {name: group[name] for name in manifest["arrays"]}
        diagnostics = json.loads((path / DIAGNOSTICS).read_text())
    except (OSError, KeyError, ValueError) as error:
        raise OutputError(f"{path} is incomplete: {error}") from error
    for name, array in arrays.items():
        missing = array.nchunks - array.nchunks_initialized
        if missing:
            raise OutputError(
                f"{path} is incomplete: {missing} of {array.nchunks} pieces of {name} are missing"
            )
    small = {
        name: np.asarray(array[...]) for name, array in arrays.items() if array.ndim < 3 or name in _CAMERAS
    }
    size = (manifest["size"]["height"], manifest["size"]["width"])

    def frames(name: str) -> StoredFrames | None:
        return StoredFrames(arrays[name], path, keep) if name in arrays else None

    depth, confidence = frames("depth"), frames("confidence")
    if depth is None or confidence is None:
        raise OutputError(f"{path} is incomplete: depth or confidence is missing")
    stored_rgb = frames("rgb")
    if stored_rgb is not None:
        shape = stored_rgb.shape
        rgb: LazyFrames | None = LazyFrames(
            shape, np.dtype(np.float32), lambda t: stored_rgb[t].astype(np.float32) / 255
        )
    else:
        rgb = _source_frames(manifest["source"], path, small["source_frames"], size)
    return Reconstruction(
        depth=depth,
        confidence=confidence,
        intrinsics=small["intrinsics"],
        times_s=small["times_s"],
        source_frames=small["source_frames"],
        scale_kind=manifest["scale_kind"],
        c2w=small.get("c2w"),
        dynamic=frames("dynamic"),
        rgb=rgb,
        reliable=small.get("reliable"),
        scene=small.get("scene"),
        # How to read the frames again may be a long list of names; the statements about it are in the notes.
        provenance={
            **manifest["provenance"],
            "source": {key: value for key, value in manifest["source"].items() if key != "reading"},
        },
        diagnostics=diagnostics,
    )


_CAMERAS = ("intrinsics", "c2w")


@dataclasses.dataclass(frozen=True)
class StoredFrames:
    """An array of a result: slices are numpy arrays read from disk, float maps as float32."""

    _array: Any
    _path: Path
    _keep: object = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32) if self._array.dtype.kind == "f" else np.dtype(self._array.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            return np.asarray(self._array[key], self.dtype)
        except (OSError, RuntimeError, ValueError) as error:
            raise OutputError(f"{self._path}: {self._array.name} cannot be read: {error}") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def _source_frames(
    source: Mapping[str, Any], result: Path, frames: np.ndarray, size: tuple[int, int]
) -> LazyFrames | None:
    """Colour at the size of the maps, read again from the source; its hash is checked on first use."""
    place = _find_source(source, result)
    if place is None:
        log.warning("the source %s is not there any more; the result has no colour", source.get("path"))
        return None
    opened: list[Video] = []

    def compute(t: int) -> np.ndarray:
        if not opened:
            video = reopen(place, source.get("reading", {}), int(frames.max()) + 1)
            if video.sha256() != source["sha256"]:
                raise InputError(f"{place} is not the source of {result} any more: its content has changed")
            opened.append(video)
        return opened[0].read([int(frames[t])], size)[0].numpy()

    return LazyFrames((len(frames), *size, 3), np.dtype(np.float32), compute)


def _find_source(source: Mapping[str, Any], result: Path) -> Path | None:
    candidates = [Path(source["path"])] if source.get("path") else []
    if source.get("relative_path"):
        candidates.append(result / source["relative_path"])
    return next((path for path in candidates if path.exists()), None)


class TemporaryFolder:
    """A folder that is removed when nothing refers to this object any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="geo4d-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _from_first_camera(c2w: np.ndarray, scene: np.ndarray | None) -> np.ndarray:
    moved = first_camera_world(
        torch.from_numpy(np.asarray(c2w, np.float64)), None if scene is None else torch.from_numpy(scene)
    )
    return moved.numpy().astype(c2w.dtype)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(plain(values), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """JSON form of nested values: arrays become lists, paths strings, and what is not finite becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return plain(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _as(tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(dtype)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``name: was A, is B`` for every setting that differs."""
    different: list[str] = []
    for name in sorted({*before, *now}):
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            different += _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            different.append(f"{prefix}{name}: was {a}, is {b}")
    return different


def _lock(file: Any) -> bool:
    """Take an exclusive lock on an open file without waiting; False when another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
