"""WebP, BMP and PNM: files that state their length."""

import re
import struct

from geo4d.errors import InputError
from geo4d.video.headers.page import Page
from geo4d.video.headers.tiff import exif_orientation


def webp_page(data: bytes) -> Page:
    """Size and orientation of a WebP picture, of all three codings."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        orientation, position = 1, 12
        while position + 8 <= len(data):
            length = int.from_bytes(data[position + 4 : position + 8], "little")
            if data[position : position + 4] == b"EXIF":
                orientation = exif_orientation(data[position + 8 : position + 8 + length])
            position += 8 + length + length % 2
        return Page((height, width), orientation)
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return Page((((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1))
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Page((height & 0x3FFF, width & 0x3FFF))
    raise ValueError("no size")


def check_webp(data: bytes) -> None:
    """Compare the stated length with the file's.

    Raises:
        InputError: the picture is cut.
    """
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise InputError("the WebP picture is cut")


def bmp_page(data: bytes) -> Page:
    """Size of a BMP picture."""
    width, height = struct.unpack("<ii", data[18:26])
    return Page((abs(height), abs(width)))


def check_bmp(data: bytes) -> None:
    """Compare the length of uncompressed rows with the file's; compressed pictures are not checked.

    Raises:
        InputError: the picture is cut.
        struct.error: it is cut within its header.
    """
    start, width, height, bits, packing = struct.unpack("<10xI4xii2xHI", data[:34])
    row = (abs(width) * bits + 31) // 32 * 4
    if packing in (0, 3) and start + row * abs(height) > len(data):  # others have no fixed length
        raise InputError("the BMP picture is cut")


def _pnm_fields(data: bytes) -> tuple[bytes, list[int], int]:
    """Magic, (width, height, largest value), and where the values begin."""
    gap = rb"(?:\s+|#[^\n]*\n)+"
    match = re.match(rb"(P[2356])" + 2 * (gap + rb"(\d+)") + gap + rb"(\d+)\s", data[:4096])
    if match is None:
        raise ValueError("no size")
    return match[1], [int(match[i]) for i in (2, 3, 4)], match.end()


def pnm_page(data: bytes) -> Page:
    """Size of a PNM picture, and whether it has more than 8 bits."""
    _, (width, height, most), _ = _pnm_fields(data)
    return Page((height, width), deep=most > 255)


def check_pnm(data: bytes) -> None:
    """Count the samples, binary or text.

    Raises:
        InputError: the picture is cut.
    """
    magic, (width, height, most), start = _pnm_fields(data)
    channels = 3 if magic in (b"P3", b"P6") else 1
    if magic in (b"P5", b"P6"):
        cut = start + width * height * channels * (2 if most > 255 else 1) > len(data)
    else:
        cut = len(data[start:].split()) < width * height * channels
    if cut:
        raise InputError("the PNM picture is cut")
