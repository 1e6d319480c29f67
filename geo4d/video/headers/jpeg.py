"""JPEG: size, orientation, end marker."""

import struct
from collections.abc import Iterator

from geo4d.errors import InputError
from geo4d.video.headers.page import Page
from geo4d.video.headers.tiff import exif_orientation


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
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


def jpeg_page(data: bytes) -> Page:
    """Size and orientation of a JPEG picture, from its headers.

    Raises:
        ValueError: there is no frame header.
    """
    size: tuple[int, int] | None = None
    orientation = 1
    for marker, start, end in _jpeg_segments(data):
        if size is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = struct.unpack(">HH", data[start + 1 : start + 5])
        if marker == 0xE1 and data[start : start + 6] == b"Exif\x00\x00":
            orientation = exif_orientation(data[start:end])
    if size is None:
        raise ValueError("no frame header")
    return Page(size, orientation)


def check_jpeg(data: bytes) -> None:
    """Look for the end mark behind the scan.

    Raises:
        InputError: the picture is cut.
    """
    *_, (marker, scan, _) = _jpeg_segments(data)
    if marker != 0xDA or data.find(b"\xff\xd9", scan) < 0:
        raise InputError("the JPEG picture is cut: its end marker is missing")
