"""Image-like files: EXR, 8 and 16-bit images, PFM, .flo, .dpt. Reader beside writer; numpy arrays at the border.

Formats that only others write (PFM, .dpt) have their writers in ``tests/support/writers.py``.

Writers make the file complete or not at all. Readers check sizes against the file before they allocate.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.files import existing_file, new_file

_MIDDLEBURY_TAG = 202021.25

MOST_EXR_VALUES = 2**28
"""Pixels times channels of an EXR file that are read at most: sixteen channels of 4096 x 4096."""


def load_image(path: str | Path) -> np.ndarray:
    """Colour image as RGB float32 [H, W, 3] in [0, 1]; grey is repeated, alpha dropped, EXIF rotation applied.

    Raises:
        InputError: missing or not an image.
    """
    import cv2

    data = np.fromfile(existing_file(path, "an image"), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    if image is None:
        raise InputError(f"expected an image (PNG, JPEG, PPM, ...), but {path} cannot be decoded")
    if image.dtype == np.uint8:
        peak = 255.0
    elif image.dtype == np.uint16:
        peak = 65535.0
    else:
        raise InputError(f"expected 8 or 16 bits a channel, got {image.dtype} in {path}")
    return np.ascontiguousarray(image[..., ::-1]).astype(np.float32) / np.float32(peak)


def save_image(path: str | Path, rgb: np.ndarray) -> None:
    """Write RGB [H, W, 3] (PNG: RGBA [H, W, 4], too), float in [0, 1] or uint8, as 8-bit PNG or JPEG by the suffix."""
    import cv2

    pixels = rgb if rgb.dtype == np.uint8 else np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    swapped = pixels[..., [2, 1, 0, 3]] if pixels.shape[-1] == 4 else pixels[..., ::-1]
    _encode(path, np.ascontiguousarray(swapped), cv2)


def load_png16(path: str | Path) -> np.ndarray:
    """Raw values of a one-channel PNG (8 or 16 bits) as float32 [H, W]; scale and missing value are the caller's.

    Raises:
        InputError: missing, not a PNG, or more than one channel.
    """
    import cv2

    data = np.fromfile(existing_file(path, "a 16-bit PNG"), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise InputError(f"expected a PNG, but {path} cannot be decoded")
    if image.ndim != 2:
        raise InputError(f"expected one channel, got {image.shape[2]} in {path}")
    return image.astype(np.float32)


def save_png16(path: str | Path, values: np.ndarray) -> None:
    """Write [H, W] as 16-bit PNG, rounded to integers; NaN becomes 0.

    Raises:
        ValueError: a value is infinite, or lies outside [0, 65535] after rounding.
    """
    import cv2

    filled = np.round(np.where(np.isnan(values), 0, values))
    if filled.size and not (filled.min() >= 0 and filled.max() <= 65535):
        raise ValueError(
            f"expected values in [0, 65535], got [{filled.min()}, {filled.max()}]; scale them first"
        )
    _encode(path, filled.astype(np.uint16), cv2)


def save_mask(path: str | Path, keep: np.ndarray) -> None:
    """Write bool [H, W] as 8-bit grey PNG: 255 where True, 0 (ignored, for COLMAP and nerfstudio) where False."""
    import cv2

    _encode(path, np.where(keep, 255, 0).astype(np.uint8), cv2)


def _encode(path: str | Path, pixels: np.ndarray, cv2: Any) -> None:
    suffix = Path(path).suffix.lower() or ".png"
    written, buffer = cv2.imencode(suffix, pixels)
    if not written:
        raise ValueError(f"expected an image of shape [H, W] or [H, W, 3], got {pixels.shape}")
    with new_file(path) as temporary:
        temporary.write_bytes(buffer.tobytes())


def load_exr(path: str | Path, part: str | int | None = None) -> dict[str, np.ndarray]:
    """Channels of an EXR file by name, each float32 (or uint32) and as large as the display window.

    Pixels outside the data window are 0. Layered names are kept (``left.Z``).

    Args:
        part: name or number of the part of a multi-part file; None merges all parts of one size, and the channels of a
            part that has a name of its own become ``part.channel`` where names collide.
    Raises:
        InputError: missing, not an EXR, or no such part.
    """
    import OpenEXR

    try:
        with _utf8_path(existing_file(path, "an EXR file"), "r") as place:
            _check_exr(OpenEXR.File(place, separate_channels=True, header_only=True))
            file = OpenEXR.File(place, separate_channels=True)
        return _exr_channels(file, path, part)
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise InputError(f"expected an EXR file, but {path} cannot be read: {error}") from error


def _check_exr(file: Any) -> None:
    """
    Raises:
        ValueError: the header declares more than ``MOST_EXR_VALUES``, which would be allocated before anything is read.
    """
    for piece in file.parts:
        for window in ("dataWindow", "displayWindow"):
            low, high = piece.header[window]
            columns, rows = (int(high[axis]) - int(low[axis]) + 1 for axis in (0, 1))
            channels = max(1, len(piece.header.get("channels", ())))
            if columns < 1 or rows < 1 or columns * rows * channels > MOST_EXR_VALUES:
                raise ValueError(
                    f"its {window} is {columns} x {rows} with {channels} channels; "
                    f"at most {MOST_EXR_VALUES} values are read"
                )


def _exr_channels(file: Any, path: str | Path, part: str | int | None) -> dict[str, np.ndarray]:
    parts = list(enumerate(file.parts))
    if part is not None:
        parts = [(i, p) for i, p in parts if part in (i, p.name())]
        if not parts:
            names = ", ".join(str(p.name() or i) for i, p in enumerate(file.parts))
            raise InputError(f"expected part {part!r} in {path}, found {names}")
    channels: dict[str, np.ndarray] = {}
    for index, piece in parts:
        header = piece.header
        for name, channel in piece.channels.items():
            values = _display_window(header, np.asarray(channel.pixels))
            key = name if name not in channels else f"{piece.name() or index}.{name}"
            channels[key] = values.astype(np.uint32 if values.dtype == np.uint32 else np.float32)
    return channels


def _display_window(header: Mapping[str, Any], pixels: np.ndarray) -> np.ndarray:
    (data_min, data_max), (display_min, display_max) = header["dataWindow"], header["displayWindow"]
    if np.array_equal(data_min, display_min) and np.array_equal(data_max, display_max):
        return pixels
    columns, rows = (int(display_max[i]) - int(display_min[i]) + 1 for i in (0, 1))
    full = np.zeros((rows, columns), pixels.dtype)
    left, top = int(data_min[0]) - int(display_min[0]), int(data_min[1]) - int(display_min[1])
    height, width = pixels.shape
    rows_in = slice(max(top, 0), max(min(top + height, rows), 0))
    columns_in = slice(max(left, 0), max(min(left + width, columns), 0))
    full[rows_in, columns_in] = pixels[
        rows_in.start - top : rows_in.stop - top, columns_in.start - left : columns_in.stop - left
    ]
    return full


def save_exr(
    path: str | Path,
    channels: Mapping[str, np.ndarray],
    *,
    precision: Literal["half", "float"] = "float",
    attributes: Mapping[str, str | float | int] | None = None,
) -> None:
    """Write channels of one size as a ZIP-compressed scan-line EXR.

    Args:
        channels: name -> [H, W]; NaN and infinity are kept.
        precision: of the stored values. Half keeps values up to 65504 with 11 bits.
        attributes: extra header entries (convention, units, frame index, ...).
    Raises:
        ValueError: the channels differ in size, or a finite value does not fit into half precision.
    """
    import OpenEXR

    shapes = {array.shape for array in channels.values()}
    if len(shapes) != 1:
        raise ValueError(f"expected channels of one size [H, W], got {sorted(map(str, shapes))}")
    dtype = np.float16 if precision == "half" else np.float32
    stored = {}
    for name, array in channels.items():
        finite = np.isfinite(array)
        with np.errstate(over="ignore"):
            stored[name] = np.ascontiguousarray(array.astype(dtype))
        if not np.isfinite(stored[name][finite]).all():
            raise ValueError(
                f"channel {name} exceeds the range of half precision (65504); use precision='float'"
            )
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **(attributes or {})}
    with new_file(path) as temporary, _utf8_path(temporary, "w") as place:
        OpenEXR.File(header, stored).write(place)


@contextmanager
def _utf8_path(path: Path, mode: Literal["r", "w"]) -> Iterator[str]:
    """A name of ``path`` for a library that takes text only: a copy elsewhere where bytes of the name are no UTF-8."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="geo4d-") as folder:
            place = Path(folder) / f"file{path.suffix}"
            if mode == "r":
                shutil.copyfile(path, place)
            yield str(place)
            if mode == "w":
                shutil.copyfile(place, path)
    else:
        yield str(path)


def load_pfm(path: str | Path) -> np.ndarray:
    """PFM image as float32 [H, W] or [H, W, 3], first row on top.

    Raises:
        InputError: missing, not a PFM, or shorter than its header says.
    """
    with existing_file(path, "a PFM file").open("rb") as file:
        kind = file.readline(16).strip()
        try:
            width, height = (int(word) for word in file.readline(64).split())
            scale = float(file.readline(64))
        except ValueError as error:
            raise InputError(f"expected a PFM header (Pf or PF, size, scale) in {path}") from error
        if kind not in (b"Pf", b"PF") or width <= 0 or height <= 0:
            raise InputError(
                f"expected a PFM file (Pf or PF), got {kind!r} with size {width} x {height} in {path}"
            )
        count = 1 if kind == b"Pf" else 3
        values = np.frombuffer(
            _exactly(file, 4 * width * height * count, path), "<f4" if scale < 0 else ">f4"
        )
    image = values.reshape(height, width, count)[::-1].astype(np.float32)
    return image[..., 0] if count == 1 else image


def load_dpt(path: str | Path) -> np.ndarray:
    """Depth of a Sintel .dpt file: float32 [H, W].

    Raises:
        InputError: missing, wrong tag, or shorter than its header says.
    """
    return _load_tagged(path, channels=1, what=".dpt depth")[..., 0]


def _load_tagged(path: str | Path, channels: int, what: str) -> np.ndarray:
    with existing_file(path, what).open("rb") as file:
        header = file.read(12)
        tag = np.frombuffer(header[:4], "<f4")[0] if len(header) == 12 else None
        if tag is None or tag != np.float32(_MIDDLEBURY_TAG):
            raise InputError(f"expected {what} with tag {_MIDDLEBURY_TAG} in {path}, got {tag}")
        width, height = (int(value) for value in np.frombuffer(header[4:], "<i4"))
        if width <= 0 or height <= 0:
            raise InputError(f"expected a positive size in {path}, got {width} x {height}")
        values = np.frombuffer(_exactly(file, 4 * width * height * channels, path), "<f4")
    return values.reshape(height, width, channels).astype(np.float32)


def _exactly(file: Any, num_bytes: int, path: str | Path) -> bytes:
    """Read ``num_bytes``, which must be there: checked against the size of the file before anything is allocated."""
    position = file.tell()
    remaining = file.seek(0, 2) - position
    file.seek(position)
    if remaining < num_bytes:
        raise InputError(
            f"expected {num_bytes} bytes of data in {path}, got {remaining}; the file is truncated"
        )
    return file.read(num_bytes)
