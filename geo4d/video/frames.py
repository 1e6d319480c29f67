"""Folders of frames and single pictures: which files, in which order, and whether each is whole."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np

from geo4d.errors import InputError
from geo4d.video.containers import MAX_PIXELS

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def list_frames(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order: ``frame2`` before ``frame10``. Hidden files are left out.

    Raises:
        InputError: the folder cannot be read or holds no picture.
    """
    try:
        files = [
            p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
        ]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    files = [path for path in files if path.is_file()]
    if not files:
        raise InputError(f"{folder} holds no pictures; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return sorted(files, key=_natural_key)


def sniff_image(head: bytes) -> str | None:
    """``png``, ``jpeg``, ``webp``, ``bmp``, ``tiff``, ``pnm`` by the first bytes, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"BM"):
        return "bmp"
    if head[:4] in (b"II*\x00", b"MM\x00*"):
        return "tiff"
    if re.match(rb"P[2356]\s", head):
        return "pnm"
    return None


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) that the header of a picture declares, before rotation by EXIF.

    Raises:
        InputError: not a picture, or its header is damaged.
    """
    kind = sniff_image(data[:16])
    try:
        if kind == "png":
            width, height = struct.unpack(">II", data[16:24])
        elif kind == "jpeg":
            height, width = _jpeg_size(data)
        elif kind == "webp":
            height, width = _webp_size(data)
        elif kind == "bmp":
            width, height = (abs(value) for value in struct.unpack("<ii", data[18:26]))
        elif kind == "tiff":
            height, width = _tiff_size(data)
        elif kind == "pnm":
            fields = re.match(rb"P[2356](?:\s+(?:#[^\n]*\n\s*)*)(\d+)\s+(\d+)\s", data[:1024])
            if fields is None:
                raise ValueError("no size")
            width, height = int(fields[1]), int(fields[2])
        else:
            raise InputError("expected a PNG, JPEG, WebP, BMP, TIFF or PNM picture, got other content")
    except (struct.error, ValueError, IndexError) as error:
        raise InputError(f"the header of the {kind} picture is damaged") from error
    return height, width


def check_image(data: bytes) -> tuple[int, int]:
    """(height, width) of a picture as it will be displayed, if its file is whole; nothing is decoded.

    PNG chunks are checked by their CRC, JPEG by its end marker, since decoders return a partly grey picture
    for a cut one.

    Raises:
        InputError: empty, foreign, cut, damaged, or more than ``MAX_PIXELS``.
    """
    if not data:
        raise InputError("the file is empty")
    height, width = image_size(data)
    if height * width > MAX_PIXELS:
        raise InputError(
            f"declares {width} x {height} pixels; the limit is {MAX_PIXELS / 1e6:.0f} million; scale it down first"
        )
    if height * width == 0:
        raise InputError("declares a picture without pixels")
    kind = sniff_image(data[:16])
    if kind == "png":
        _check_png(data)
    if kind == "jpeg":
        *_, (marker, scan, _) = _jpeg_segments(data)
        if marker != 0xDA or data.find(b"\xff\xd9", scan) < 0:
            raise InputError("the JPEG picture is cut: its end marker is missing")
        if _jpeg_orientation(data) >= 5:
            return width, height
    if kind == "webp" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise InputError("the WebP picture is cut")
    return height, width


def load_frame(path: Path) -> np.ndarray:
    """A picture as displayed: [H, W, 3] uint8 RGB; EXIF rotation applied, alpha over black.

    Raises:
        InputError: the file is missing, damaged or too large.
    """
    import cv2

    try:
        data = path.read_bytes()
        check_image(data)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    flags = cv2.IMREAD_COLOR if sniff_image(data[:16]) in ("jpeg", "bmp", "pnm") else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded: {error.err}") from error
    if image is None:
        raise InputError(f"{path} cannot be decoded; the picture is damaged")
    if image.dtype != np.uint8:
        scale = 65535.0 if image.dtype == np.uint16 else 1.0
        image = np.clip(np.rint(image.astype(np.float32) * (255.0 / scale)), 0, 255).astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.shape[-1] == 4:
        image = ((image[..., :3] * image[..., 3:].astype(np.uint16) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(image[..., ::-1])


def _natural_key(path: Path) -> tuple:
    return tuple(int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name))


def _check_png(data: bytes) -> None:
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise InputError("the PNG picture is damaged: a check sum is wrong")
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end
    raise InputError("the PNG picture is cut")


def _jpeg_segments(data: bytes):
    """(marker, payload start, payload end) of the segments before the picture data."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ValueError("no marker")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, position + 2 + length
        if marker == 0xDA:
            return
        position += 2 + length


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, start, _ in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[start + 1 : start + 5])
            return height, width
    raise ValueError("no frame header")


def _jpeg_orientation(data: bytes) -> int:
    """EXIF orientation 1..8; 1 when there is none."""
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\x00\x00":
            return _tiff_tags(data[start + 6 : end]).get(274, 1)
    return 1


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Integer tags of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack(order + "I", data[4:8])
    if offset + 2 > len(data):
        return {}
    (count,) = struct.unpack(order + "H", data[offset : offset + 2])
    tags: dict[int, int] = {}
    for i in range(min(count, 512)):
        entry = data[offset + 2 + 12 * i : offset + 14 + 12 * i]
        if len(entry) < 12:
            break
        tag, kind, length = struct.unpack(order + "HHI", entry[:8])
        if length == 1 and kind in (3, 4):
            tags[tag] = struct.unpack(
                order + ("H" if kind == 3 else "I"), entry[8 : 10 if kind == 3 else 12]
            )[0]
    return tags


def _tiff_size(data: bytes) -> tuple[int, int]:
    tags = _tiff_tags(data)
    if 256 not in tags or 257 not in tags:
        raise ValueError("no size")
    return tags[257], tags[256]


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return height & 0x3FFF, width & 0x3FFF
    raise ValueError("no size")
