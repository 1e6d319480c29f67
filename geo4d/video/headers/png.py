"""PNG: size, orientation, CRC of every chunk."""

import struct
import zlib
from collections.abc import Iterator

from geo4d.errors import InputError
from geo4d.video.headers.page import Page
from geo4d.video.headers.tiff import exif_orientation


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def png_page(data: bytes) -> Page:
    """Size, depth and orientation of a PNG picture, from its chunks."""
    width, height, bits = struct.unpack(">IIB", data[16:25])
    orientation = 1
    for name, payload in _png_chunks(data):
        if name == b"eXIf":
            orientation = exif_orientation(payload)
        elif name in (b"tEXt", b"zTXt") and payload.startswith(b"Raw profile type "):
            orientation = _text_orientation(name, payload)  # how EXIF was kept in PNG before it had a chunk
    return Page((height, width), orientation, bits > 8)


def _text_orientation(name: bytes, payload: bytes) -> int:
    key, _, text = payload.partition(b"\0")
    if key not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return 1
    try:
        text = zlib.decompressobj().decompress(text[1:], 2**20) if name == b"zTXt" else text
        words = text.split()
        return exif_orientation(bytes.fromhex(b"".join(words[2:]).decode("ascii")))
    except (zlib.error, ValueError):
        return 1


def check_png(data: bytes) -> None:
    """Compare the check sums of all chunks up to the last.

    Raises:
        InputError: the picture is cut or damaged.
    """
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
