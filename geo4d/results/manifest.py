"""What a result on disk says about itself, checked before anything is believed, and which files of a folder are its own.

``manifest.json`` states what the arrays are and carries the SHA-256 of its own values and of the list ``SHA256SUMS``,
which holds that of every other file. Results of format 1 (geo4d 0.1.0 before release) have neither list nor sums; they
stay readable.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import OutputError

FORMAT = "geo4d-result"
VERSION = 2
ARRAYS = "arrays.zarr"
MANIFEST = "manifest.json"
DIAGNOSTICS = "diagnostics.json"
SUMS = "SHA256SUMS"
WINDOWS = "windows"

MOST_BYTES = 256 * 2**20
"""A manifest, a list of sums or diagnostics longer than this are not read."""

MOST_PIXELS = 2**28
"""Pixels of a stored map at most; more is damage, not a picture."""

_FLOATS, _INTEGERS, _FLAGS = "f", "iu", "b"

LAYOUT: dict[str, tuple[tuple[int | str, ...], str]] = {
    "depth": (("H", "W"), _FLOATS),
    "confidence": (("H", "W"), _FLOATS),
    "dynamic": (("H", "W"), _FLOATS),
    "rgb": (("H", "W", 3), "u"),
    "intrinsics": ((3, 3), _FLOATS),
    "c2w": ((4, 4), _FLOATS),
    "times_s": ((), _FLOATS),
    "source_frames": ((), _INTEGERS),
    "scene": ((), _INTEGERS),
    "reliable": ((), _FLAGS),
}
"""Array -> its shape behind the axis of frames, and the kinds of numbers that it may hold (as numpy calls them)."""

FRAME_ARRAYS = ("depth", "confidence", "dynamic", "rgb")
"""Arrays with a chunk per frame; the others are one chunk."""

REQUIRED = ("depth", "confidence", "intrinsics", "times_s", "source_frames")

_CHUNK = re.compile(r"c(?:[./]\d+)*")
_WINDOW_FILE = re.compile(r"(?:window_\d+_try\d+|evidence_\d+|moving_\d+|motion|context)\.zarr\.zip")


def read_json(path: Path) -> Any:
    """Values of a JSON file that anything may have been done to.

    Raises:
        OutputError: not there, too long, or not JSON.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OutputError(f"{path} is longer than the {MOST_BYTES} bytes that are read of such a file")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputError(f"{path.parent} is incomplete: {path.name} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path} is damaged, expected JSON: {error}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a result, with everything in it that a reader relies on.

    Raises:
        OutputError: not a result of ours, of a newer format, or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise OutputError(f"{folder} is not a geo4d result: it has no {MANIFEST} of ours")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise OutputError(f"{folder} is not a geo4d result: its {MANIFEST} is not ours")
    version = manifest.get("version")
    if type(version) is not int or version < 1:
        raise OutputError(f"{path} is damaged: expected a format version from 1 on, got {version!r:.80}")
    if version > VERSION:
        raise OutputError(
            f"{folder} is of format {version}, written by geo4d {str(manifest.get('geo4d', 'of unknown version'))[:40]}; "
            f"this geo4d reads formats 1 to {VERSION}: update geo4d"
        )
    if version > 1 and manifest.get("sha256") != manifest_sha256(manifest):
        raise OutputError(f"{path} is damaged or was edited: its SHA-256 is not the one that it states")
    fault = _fault(manifest)
    if fault is not None:
        raise OutputError(f"{path} is damaged: {fault}")
    return manifest


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Hex SHA-256 of all values of a manifest but this one, in one canonical form."""
    values = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _fault(manifest: Mapping[str, Any]) -> str | None:
    """What a reader needs and does not find."""

    def count(value: Any) -> bool:
        return type(value) is int and 0 < value < 2**31

    size, source = manifest.get("size"), manifest.get("source")
    if not count(manifest.get("num_frames")):
        return f"expected a number of frames, got {manifest.get('num_frames')!r:.80}"
    if not isinstance(size, dict) or not count(size.get("height")) or not count(size.get("width")):
        return f"expected the height and width of the maps, got {size!r:.80}"
    if size["height"] * size["width"] > MOST_PIXELS:
        return f"maps of {size['height']}x{size['width']} pixels are larger than any that are written"
    arrays = manifest.get("arrays")
    if not isinstance(arrays, dict):
        return f"expected the arrays by name, got {arrays!r:.80}"
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        return f"{', '.join(missing)} are not among its arrays"
    if manifest.get("scale_kind") not in ("metric", "scale"):
        return f"expected 'metric' or 'scale' as scale_kind, got {manifest.get('scale_kind')!r:.80}"
    if not isinstance(source, dict):
        return f"expected a source, got {source!r:.80}"
    for name in ("path", "relative_path", "sha256"):
        if not isinstance(source.get(name), str | None) or "\0" in (source.get(name) or ""):
            return f"expected text as the {name} of the source, got {source.get(name)!r:.80}"
    whole = source.get("size", size)
    if not isinstance(whole, dict) or not count(whole.get("height")) or not count(whole.get("width")):
        return f"expected the height and width of the source, got {whole!r:.80}"
    provenance = manifest.get("provenance")
    if not isinstance(provenance, dict) or not isinstance(provenance.get("config", {}), dict):
        return "expected a provenance with the settings of the run"
    return None


def is_result(folder: Path) -> bool:
    """Whether a folder holds a result of ours, of any format that can be read."""
    try:
        read_manifest(folder)
    except OutputError:
        return False
    return True


def own_files(folder: Path) -> Iterator[Path]:
    """Files of a result that geo4d wrote by its manifest; links, and all that lies beside them, are the user's.

    Raises:
        OutputError: there is no manifest of ours.
    """
    arrays = read_manifest(folder)["arrays"]
    for name in (MANIFEST, DIAGNOSTICS, SUMS):
        yield from _plain_files(folder, name)
    if is_plain_folder(folder / ARRAYS):
        yield from _plain_files(folder / ARRAYS, "zarr.json")
        for name in (name for name in arrays if name in LAYOUT):
            root = folder / ARRAYS / name
            for path in _walk(root):
                inside = path.relative_to(root).as_posix()
                if inside == "zarr.json" or _CHUNK.fullmatch(inside):
                    yield path
    for path in _walk(folder / WINDOWS):
        if path.parent == folder / WINDOWS and _WINDOW_FILE.fullmatch(path.name):
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    """Plain files below a folder; no link is followed or named."""
    if not is_plain_folder(folder):
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_plain_folder(Path(entry.path)):
                yield from _walk(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def is_plain_folder(path: Path) -> bool:
    """Whether this is a folder itself: no link to one, nor what Windows calls a junction."""
    is_junction = getattr(path, "is_junction", lambda: False)  # from Python 3.12 on
    return path.is_dir() and not path.is_symlink() and not is_junction()


def _plain_files(folder: Path, name: str) -> Iterator[Path]:
    path = folder / name
    if path.is_file() and not path.is_symlink():
        yield path


def diagnostics_fault(diagnostics: Any) -> str | None:
    """What a report or a verdict cannot read of the diagnostics of a result; unknown entries may hold anything."""
    if not isinstance(diagnostics, dict):
        return "expected a JSON object"
    shapes = {
        "windows": _is_list(_is_list(_is_int)),
        "evidence_windows": _is_list(_is_int),
        "scenes": _is_list(_is_scene),
        "dropped": _is_list(_has(window=_is_int, what=_is_text, why=_is_text)),
        "tries": _is_mapping(lambda value: True),
        "not_finite": _is_mapping(lambda value: True),
        "frames_without_picture": _is_list(_is_int),
        "motion": _is_list(_has(start=_is_int, stop=_is_int, kind=_is_text, statement=_is_text)),
        "seconds": _is_mapping(_is_number),
        "metric": _has(statement=_is_text),
    }
    for name, fits in shapes.items():
        if diagnostics.get(name) is not None and not fits(diagnostics[name]):
            return f"{name} is not as geo4d writes it"
    count = len(diagnostics.get("windows") or ())
    if not all(0 <= number < count for number in diagnostics.get("evidence_windows") or ()):
        return "evidence_windows names windows that are not there"
    if not all(str(number).isdecimal() for number in diagnostics.get("tries") or ()):
        return "tries names windows that are not there"
    return None


_Fits = Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return isinstance(value, int)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(fits: _Fits) -> _Fits:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is_mapping(fits: _Fits) -> _Fits:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _has(**parts: _Fits) -> _Fits:
    return lambda value: (
        isinstance(value, dict) and all(name in value and fits(value[name]) for name, fits in parts.items())
    )


def _is_scene(value: Any) -> bool:
    """What the fusion noted about a scene: numbers of its windows, and lists of one value for each."""
    lists = ("disagreement", "point_residual", "disparity_error", "disparity_share", "window_residual")
    return (
        isinstance(value, dict)
        and _is_list(_is_int)(value.get("windows", []))
        and all(isinstance(value.get(name, []), list) for name in lists)
        and isinstance(value.get("trajectory_rpe_deg", {}), dict)
    )
