"""The result of a run on disk: written frame by frame, complete or absent, read back lazily.

A result is a folder with

- ``arrays.zarr``: a zarr v3 group, one chunk per frame;
- ``manifest.json``: what the arrays are, their conventions and units, source and its hash, provenance;
- ``diagnostics.json``: fusion terms, windows dropped and why, timings;
- ``SHA256SUMS``: of every file but the manifest, which holds that of this list and of itself.

A run works in the hidden folder ``.NAME.geo4d-run`` beside ``NAME``, under a lock, and renames the finished result into
place as its last step. It removes nothing but what runs have made, and follows no link.
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from geo4d import __version__
from geo4d.config import Precision
from geo4d.errors import InputError, OutputError
from geo4d.formats.arrays import create_frames, create_whole
from geo4d.formats.files import output_errors
from geo4d.formats.locks import FileLock, lock_text
from geo4d.geometry.poses import first_camera_world
from geo4d.manifest import (
    ARRAYS,
    DIAGNOSTICS,
    FORMAT,
    FRAME_ARRAYS,
    LAYOUT,
    MANIFEST,
    MOST_BYTES,
    SUMS,
    VERSION,
    WINDOWS,
    is_plain_folder,
    is_result,
    manifest_sha256,
    own_files,
    read_json,
    read_manifest,
)
from geo4d.types import CONVENTIONS, FrameMaps, LazyFrames, Reconstruction
from geo4d.video.io import Video, reopen

if TYPE_CHECKING:
    from geo4d.formats.checksums import Checksums

log = logging.getLogger(__name__)

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
                array = create_whole(self._group, name, values)
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
                    self._arrays[name] = create_frames(self._group, name, shape, values.dtype, fill)
            self._arrays[name][index] = values
        with self._creating:
            self._written[name] = self._written.get(name, 0) + 1


class Workspace:
    """The hidden folder of a run, locked while the run lives.

    Use as a context manager. On success call ``publish``; on an error the finished windows stay for a later resume, and
    a run that finished none leaves nothing.

    Args:
        output: where the result will be, or a link to it; None: a temporary folder that lives as long as the result.
        settings: what decides the windows of the run; a resumed run must agree.
        overwrite: replace an existing result, or forget an unfinished run.
        resume: go on with an unfinished run, also with one that was begun with ``overwrite``.
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
        self.place = real_place(self.output)
        self.folder = run_folder(self.output)
        self.windows = self.folder / WINDOWS
        self.result = self.folder / "result"
        self._lock: Any = None

    def __enter__(self) -> "Workspace":
        check_output(self.output, overwrite=self.overwrite, resume=self.resume)
        with output_errors(self.output):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            try:
                self._begin()
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        _windows_back(self.folder)
        if self.result.exists():  # it did not get into its place
            (self.folder / _PUBLISHED).unlink(missing_ok=True)
        if kind is not None and self._temporary is None and any(self.windows.glob("window_*")):
            shutil.rmtree(self.result, ignore_errors=True)
            log.warning(
                "the finished windows are kept in %s; run again with --resume to go on, or with --overwrite",
                self.folder,
            )
            self._lock.release()
        else:
            _remove_run_folder(self.folder, self._lock)

    def publish(self, *, keep_windows: bool = False) -> Reconstruction:
        """Rename the finished result into place and open it.

        A result that it replaces is removed file by file, as its manifest lists them; what else lies in it is handed on.
        """
        replaced = self.folder / _REPLACED
        with output_errors(self.output):
            if keep_windows:
                self.windows.replace(self.result / WINDOWS)
            (self.folder / _PUBLISHED).touch()
            if self.place.exists():
                self.place.replace(replaced)
            try:
                self.result.replace(self.place)
            except BaseException:
                if replaced.exists():
                    replaced.replace(self.place)
                raise
            _hand_over(replaced, self.place)
        return load_result(self.output, keep=self._temporary)

    def _take_lock(self) -> FileLock:
        """The lock of the run folder, which is made if it is not there and otherwise must be ours."""
        while True:
            try:
                self.folder.mkdir()
            except FileExistsError:
                _require_ours(self.folder)
            try:
                _put_mark(self.folder)
                lock = FileLock.take(self.folder / _LOCK)
            except FileNotFoundError:
                continue  # another run just finished and removed its folder
            if lock is None:
                owner = lock_text(self.folder / _LOCK) or "unknown"
                raise OutputError(
                    f"another run (process {owner}) is writing {self.output}; wait for it or choose another output"
                )
            lock.write(str(os.getpid()))
            return lock

    def _begin(self) -> None:
        _finish_publishing(self.folder, self.place)
        _windows_back(self.folder)
        for name in (WINDOWS, "result"):
            if (self.folder / name).is_symlink():
                raise OutputError(f"{self.folder / name} is a link, which no run makes; remove it")
        _require_renaming(self.place, self.folder / _REPLACED)
        (self.folder / _PUBLISHED).unlink(missing_ok=True)
        shutil.rmtree(self.result, ignore_errors=True)
        begun = None
        if (self.folder / _SETTINGS).exists() and (self.resume or not self.overwrite):
            begun = _read_begun(self.folder)
            if not self.resume:
                count = len(list(self.windows.glob("window_*")))
                raise OutputError(
                    f"an unfinished run of {self.output} exists ({count} windows done); "
                    "--resume goes on with it, --overwrite starts again"
                )
            different = _differences(begun["settings"], self.settings)
            if different:
                raise OutputError(
                    f"the unfinished run of {self.output} has other settings ({'; '.join(different)}); "
                    "repeat them, or start again with --overwrite alone"
                )
        else:
            shutil.rmtree(self.windows, ignore_errors=True)
        self.windows.mkdir(exist_ok=True)
        for leftover in self.windows.glob(".*"):
            leftover.unlink()
        overwrite = self.overwrite or (begun is not None and begun["overwrite"])
        write_json(self.folder / _SETTINGS, {"overwrite": overwrite, "settings": self.settings})


_MARK, _LOCK, _SETTINGS, _PUBLISHED, _REPLACED = "geo4d-run", "lock", "settings.json", "published", "replaced"
"""Names in a run folder: the mark that it is ours; the lock; what the run was begun with; that the result was about to be
renamed into place; the result that it replaces."""

_MARK_TEXT = (
    "A run of geo4d works in this folder. geo4d goes on with it (--resume) or removes it (--overwrite).\n"
)


def real_place(output: Path) -> Path:
    """Where the folder of a result really is or will be: links to it are followed once, here, and never replaced.

    Raises:
        OutputError: a link to nothing.
    """
    if not output.is_symlink():
        return output
    place = Path(os.path.realpath(output))
    if not place.exists():
        raise OutputError(f"{output} is a link to {place}, which does not exist; remove the link")
    return place


def run_folder(output: Path) -> Path:
    """Where a run that will give ``output`` works: beside it, or beside what it links to."""
    place = real_place(output)
    return place.parent / f".{place.name}.geo4d-run"


def check_output(output: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output that must not or cannot be replaced, before anything is computed.

    Tidies up what a run that was killed while it published has left.

    Raises:
        OutputError: it exists and ``overwrite`` is not given, is not a result of ours, cannot be renamed, or cannot be
            written.
    """
    try:
        _check_output(output, overwrite, resume)
    except OSError as error:
        raise OutputError(
            f"cannot write {str(output)[:300]}: {error.strerror or error}; choose another output"
        ) from error


def _check_output(output: Path, overwrite: bool, resume: bool) -> None:
    if not output.name or output.name == "..":
        raise OutputError(f"expected a folder name for the result, got {str(output)!r}")
    ancestor = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise OutputError(f"cannot write {output}: {ancestor} is not a folder that you may write to")
    place, folder = real_place(output), run_folder(output)
    check_name(place.name, folder.name, ancestor)
    if os.path.lexists(folder):
        _require_ours(folder)
        _tidy(folder, place)
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise OutputError(f"{output} exists and is not a folder; choose another output")
    if is_mount_point(place):
        raise OutputError(
            f"{output} is a mount point, and a finished result is renamed into place, which a mount point is not; "
            f"choose a folder inside, such as {output / 'result'}"
        )
    if not os.access(place.parent, os.W_OK):
        raise OutputError(f"cannot write {output}: {place.parent} is not a folder that you may write to")
    if not any(place.iterdir()):
        return
    if not is_result(place):
        raise OutputError(
            f"{output} exists and is not a geo4d result; it is left alone, choose another output"
        )
    begun = _read_begun(folder) if resume and (folder / _SETTINGS).exists() else None
    if not overwrite and not (begun is not None and begun["overwrite"]):
        hint = (
            "is complete already; load it, or start again with --overwrite"
            if resume
            else ("exists; choose another output, or replace it with --overwrite")
        )
        raise OutputError(f"{output} {hint}")


_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?")


def check_name(name: str, run_name: str, parent: Path, system: str = os.name) -> None:
    """Refuse names that the system cannot give to the folder of a result or of its run.

    Args:
        system: as ``os.name`` tells it.
    Raises:
        OutputError: too long, or reserved or impossible on Windows.
    """
    if system == "nt":
        if _RESERVED.fullmatch(name):
            raise OutputError(f"Windows keeps the name {name} for a device; choose another output")
        if set(name) & set('<>:"|?*') or min(name) < " " or name[-1] in " .":
            raise OutputError(
                f'Windows does not allow the name {name!r}: it holds one of <>:"|?*, or ends with a dot or a space; '
                "choose another output"
            )
    most = os.pathconf(parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    length = len(run_name) if system == "nt" else len(os.fsencode(run_name))
    if length > most:
        raise OutputError(
            f"the name {name[:40]}... is too long: at most {most - (length - len(os.fsencode(name)))} bytes; "
            "choose another output"
        )


def is_mount_point(folder: Path) -> bool:
    """Whether another file system, or another folder, is mounted here."""
    if os.path.ismount(folder):
        return True
    try:  # Linux: a folder of the same file system can be mounted, too, and ``ismount`` does not see that
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return False
    mounted = {re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in lines}
    return os.path.realpath(folder) in mounted


def _require_renaming(place: Path, aside: Path) -> None:
    """Find out before any work whether the folder in the way of the result can be moved, as it must be at the end."""
    if not place.exists():
        return
    try:
        place.replace(aside)
    except OSError as error:
        raise OutputError(
            f"{place} cannot be renamed ({error.strerror}), and a finished result is renamed into its place; "
            f"close what uses it, or choose another output, such as {place / 'result'}"
        ) from error
    aside.replace(place)


def _put_mark(folder: Path) -> None:
    try:
        descriptor = os.open(folder / _MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_MARK_TEXT)


def _require_ours(folder: Path) -> None:
    """
    Raises:
        OutputError: what has the name of a run folder was not made by a run.
    """
    if is_plain_folder(folder):
        mark = folder / _MARK
        if mark.is_file() and not mark.is_symlink():
            return
        if {path.name for path in folder.iterdir()} <= {_LOCK}:
            return  # a run is just putting its mark, or has just taken it away
    if os.path.lexists(folder):
        raise OutputError(
            f"{folder} has the name that a run needs for its own folder, but no run of this version made it; "
            "it is left alone: move it away, or choose another output"
        )


def _read_begun(folder: Path) -> dict[str, Any]:
    """What a run was begun with: ``overwrite`` and ``settings``."""
    path = folder / _SETTINGS
    try:
        begun = read_json(path)
    except OutputError as error:
        begun = error
    if (
        isinstance(begun, dict)
        and isinstance(begun.get("settings"), dict)
        and isinstance(begun.get("overwrite"), bool)
    ):
        return begun
    raise OutputError(
        f"{path} is damaged, so the unfinished run cannot be gone on with; start again with --overwrite"
    )


def _tidy(folder: Path, place: Path) -> None:
    """Finish what a killed run was about to do when it published; a living run is left alone."""
    if not (folder / _MARK).exists():
        return
    try:
        lock = FileLock.take(folder / _LOCK)
    except FileNotFoundError:
        return
    if lock is None:
        return
    try:
        published = _finish_publishing(folder, place)
    except BaseException:
        lock.release()
        raise
    if published:
        _remove_run_folder(folder, lock)
    else:
        lock.release()


def _finish_publishing(folder: Path, place: Path) -> bool:
    """After a kill between or behind the renames of ``publish``; True when the result was in its place already."""
    replaced = folder / _REPLACED
    if not os.path.lexists(place):
        if is_plain_folder(replaced):
            replaced.replace(place)
        return False
    if not (folder / _PUBLISHED).exists() or (folder / "result").exists():
        return False
    _hand_over(replaced, place)
    return True


def _windows_back(folder: Path) -> None:
    """Take windows back that were put into a result which then did not appear."""
    inside = folder / "result" / WINDOWS
    if is_plain_folder(inside) and not (folder / WINDOWS).exists():
        inside.replace(folder / WINDOWS)


def _hand_over(replaced: Path, place: Path) -> None:
    """Remove the files of a replaced result that its manifest lists; move everything else to the new one, and say so."""
    if not is_plain_folder(replaced):
        return
    if is_result(replaced):
        manifest = replaced / MANIFEST
        for path in [path for path in own_files(replaced) if path != manifest]:
            path.unlink()
        manifest.unlink()  # last: after a kill the rest is still known to be a result's
    left = sorted(_leaves(replaced))
    for path in left:
        target = place / path.relative_to(replaced)
        while os.path.lexists(target):
            target = target.with_name(target.name + ".old")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    if left:
        names = ", ".join(str(path.relative_to(replaced)) for path in left[:5])
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        log.warning("%s: files that geo4d did not write are left in it: %s%s", place, names, more)
    shutil.rmtree(replaced, ignore_errors=True)


def _leaves(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no plain folder."""
    for path in folder.iterdir():
        if is_plain_folder(path):
            yield from _leaves(path)
        else:
            yield path


def _remove_run_folder(folder: Path, lock: FileLock) -> None:
    """Remove what runs make; the folder goes, too, unless someone put something else into it."""
    for name in (WINDOWS, "result"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (_SETTINGS, f".{_SETTINGS}.part", _PUBLISHED):
        (folder / name).unlink(missing_ok=True)
    others = [path.name for path in folder.iterdir() if path.name not in (_MARK, _LOCK)]
    if others:
        log.warning(
            "%s is left: it holds %s, which geo4d did not write", folder, ", ".join(sorted(others)[:5])
        )
        lock.release()
        return
    (folder / _MARK).unlink(missing_ok=True)
    lock.remove()
    with suppress(OSError):  # another run has just begun in it
        folder.rmdir()


def load_result(path: str | Path, keep: object = None) -> Reconstruction:
    """Open a result; maps are read when they are sliced, and what is read is compared with its recorded SHA-256.

    Args:
        keep: an object that must live as long as the arrays.
    Raises:
        OutputError: no result there, unfinished, incomplete, damaged, or of a newer format.
    """
    path = Path(path)
    if not path.is_dir():
        unfinished = (
            " (an unfinished run is there; finish it with --resume)"
            if not path.is_symlink() and run_folder(path).exists()
            else ""
        )
        raise OutputError(f"expected a geo4d result at {path}, found nothing{unfinished}")
    manifest = read_manifest(path)
    sums = _read_sums(path, manifest)
    diagnostics = read_json(path / DIAGNOSTICS)
    if not isinstance(diagnostics, dict):
        raise OutputError(f"{path / DIAGNOSTICS} is damaged: expected a JSON object")
    arrays = _open_arrays(path, manifest, sums)
    small = {
        name: _read(path, array, np.s_[...]) for name, array in arrays.items() if name not in FRAME_ARRAYS
    }
    size = (manifest["size"]["height"], manifest["size"]["width"])

    def frames(name: str) -> StoredFrames | None:
        return StoredFrames(arrays[name], path, keep) if name in arrays else None

    stored_rgb = frames("rgb")
    if stored_rgb is not None:
        shape = stored_rgb.shape
        rgb: LazyFrames | None = LazyFrames(
            shape, np.dtype(np.float32), lambda t: stored_rgb[t].astype(np.float32) / 255
        )
    else:
        rgb = _source_frames(manifest["source"], path, small["source_frames"], size)
    return Reconstruction(
        depth=StoredFrames(arrays["depth"], path, keep),
        confidence=StoredFrames(arrays["confidence"], path, keep),
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


def _read_sums(path: Path, manifest: Mapping[str, Any]) -> "Checksums | None":
    """The list of sums, checked against the manifest, and the diagnostics against it; None for format 1."""
    from geo4d.formats.checksums import Checksums

    if manifest["version"] == 1:
        return None
    try:
        if (path / SUMS).stat().st_size > MOST_BYTES:
            raise OutputError(f"{path / SUMS} is longer than any list of sums")
        text = (path / SUMS).read_bytes()
        if hashlib.sha256(text).hexdigest() != manifest.get("sums_sha256"):
            raise OutputError(f"{path / SUMS} is damaged: its SHA-256 is not the one in {MANIFEST}")
        sums = Checksums.parse(text.decode(), manifest["num_frames"])
        found = hashlib.sha256((path / DIAGNOSTICS).read_bytes()).digest()
    except FileNotFoundError as error:
        raise OutputError(f"{path} is incomplete: {Path(error.filename).name} is missing") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"{path / SUMS} cannot be read: {error}") from error
    if found != sums.get(DIAGNOSTICS):
        raise OutputError(f"{path / DIAGNOSTICS} is damaged: its SHA-256 is not the recorded one")
    return sums


def _open_arrays(path: Path, manifest: Mapping[str, Any], sums: "Checksums | None") -> dict[str, Any]:
    """The arrays of a result by name; each has the shape, numbers and files that the manifest promises."""
    import zarr
    from zarr.storage import LocalStore

    from geo4d.formats.checksums import ChecksummedStore

    store = ChecksummedStore(LocalStore(path / ARRAYS, read_only=True), sums, ARRAYS + "/")
    names = [name for name in manifest["arrays"] if name in LAYOUT]
    with _damage_in(path):
        group: Any = zarr.open_group(store, mode="r", zarr_format=3)
        arrays = {name: group[name] for name in names}
        for name, array in arrays.items():
            fault = _array_fault(name, array, manifest)
            if fault is not None:
                raise OutputError(f"{path} is damaged: {name} {fault}")
    for name, array in arrays.items():
        chunks = math.prod(math.ceil(n / c) for n, c in zip(array.shape, array.chunks, strict=True))
        missing = chunks - _count_chunks(path / ARRAYS / name)
        if missing > 0:
            raise OutputError(f"{path} is incomplete: {missing} of {chunks} pieces of {name} are missing")
        store.chunk_bytes[name] = math.prod(array.chunks) * array.dtype.itemsize
    return arrays


def _array_fault(name: str, array: Any, manifest: Mapping[str, Any]) -> str | None:
    """What is not as a writer of results makes it; nothing is unpacked, and no memory taken, before this is asked."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    if not hasattr(array, "shape"):
        return "is no array"
    behind, kinds = LAYOUT[name]
    sides = {"H": manifest["size"]["height"], "W": manifest["size"]["width"]}
    shape = (manifest["num_frames"], *(n if isinstance(n, int) else sides[n] for n in behind))
    if tuple(array.shape) != shape:
        return f"has the shape {tuple(array.shape)!r:.80}, expected {shape}"
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        return f"holds numbers of type {array.dtype}"
    chunks = (1, *shape[1:]) if name in FRAME_ARRAYS else shape
    if tuple(array.chunks) != chunks or getattr(array, "shards", None) is not None:
        return f"is stored in pieces of {tuple(array.chunks)!r:.80}, expected {chunks}"
    known = (BloscCodec, Crc32cCodec, ZstdCodec)
    if array.filters or not all(isinstance(codec, known) for codec in array.compressors):
        return "is packed in a way that geo4d does not write"
    return None


def _count_chunks(folder: Path) -> int:
    return sum(len(files) - ("zarr.json" in files) for _, _, files in os.walk(folder))


@contextmanager
def _damage_in(path: Path) -> Iterator[None]:
    """Whatever zarr and its codecs raise on damaged data becomes one error; they raise nearly everything."""
    try:
        yield
    except (OutputError, IndexError, MemoryError):
        raise
    except Exception as error:
        raise OutputError(f"{path} cannot be read, it is damaged: {error}") from error


def _read(path: Path, array: Any, key: Any) -> np.ndarray:
    with _damage_in(path / ARRAYS / array.basename):
        return np.asarray(array[key])


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
        return _read(self._path, self._array, key).astype(self.dtype, copy=False)

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
            if video.sha256() != source.get("sha256"):
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
    """A folder that is removed when nothing refers to this object any more; after a kill, when the next one is made."""

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        lock = None
        while (
            lock is None
        ):  # a start of another process can take the lock of a folder that has just been made
            self.path = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
            lock = FileLock.take(self.path / _TEMPORARY_LOCK)
        weakref.finalize(self, _remove_temporary, self.path, lock)


_TEMPORARY, _TEMPORARY_LOCK = "geo4d-", "geo4d-temporary"


def _remove_temporary(folder: Path, lock: FileLock) -> None:
    lock.remove()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary folders of processes that do not live any more."""
    for folder in parent.glob(_TEMPORARY + "*"):
        try:
            if is_plain_folder(folder) and (folder / _TEMPORARY_LOCK).is_file():
                lock = FileLock.take(folder / _TEMPORARY_LOCK)
                if lock is not None:
                    _remove_temporary(folder, lock)
        except OSError as error:  # of another user, or just removed by another process
            log.debug("%s is left: %s", folder, error)


def _from_first_camera(c2w: np.ndarray, scene: np.ndarray | None) -> np.ndarray:
    moved = first_camera_world(
        torch.from_numpy(np.asarray(c2w, np.float64)), None if scene is None else torch.from_numpy(scene)
    )
    return moved.numpy().astype(c2w.dtype)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file that is complete or absent; a link of that name is replaced, not followed."""
    text = json.dumps(plain(values), indent=1, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    temporary.replace(path)


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
