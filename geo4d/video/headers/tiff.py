"""TIFF and EXIF: directories, pages, orientation."""

import struct
from dataclasses import dataclass

from geo4d.errors import InputError
from geo4d.video.headers.page import Page
from geo4d.video.limits import MAX_FRAMES

_ORIENTATION, _SUBFILE, _BITS, _SAMPLE_FORMAT = 274, 254, 258, 339
_REDUCED_OR_MASK = 0b101

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
_TYPE_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Tags:
    """Directory of a TIFF: tag -> (type code, count, where the values are)."""

    order: str
    entries: dict[int, tuple[str, int, int]]
    following: int

    def values(self, data: bytes | bytearray, tag: int) -> tuple[int, ...]:
        """Values of an integer tag; empty without it.

        Raises:
            struct.error: they lie beyond the end of ``data``.
        """
        if tag not in self.entries:
            return ()
        code, count, start = self.entries[tag]
        return struct.unpack(
            f"{self.order}{count}{code}", data[start : start + count * struct.calcsize(code)]
        )

    def first(self, data: bytes | bytearray, tag: int, default: int) -> int:
        return next(iter(self.values(data, tag)), default)


def _tiff_layout(data: bytes | bytearray) -> tuple[str, bool]:
    """Byte order and whether offsets have 64 bits."""
    order = "<" if data[:2] == b"II" else ">"
    return order, struct.unpack(order + "H", data[2:4])[0] == 43


def _first_directory(data: bytes | bytearray) -> int:
    order, big = _tiff_layout(data)
    return struct.unpack(order + ("Q" if big else "I"), data[8:16] if big else data[4:8])[0]


def _tiff_tags(data: bytes | bytearray, offset: int) -> _Tags:
    """Integer tags of the directory at ``offset``."""
    order, big = _tiff_layout(data)
    head, entry_bytes, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    start = offset + struct.calcsize(head)
    (count,) = struct.unpack(order + head, data[offset:start])
    entries = {}
    for i in range(min(count, 4096)):
        at = start + entry_bytes * i
        tag, kind, number = struct.unpack(
            order + ("HHQ" if big else "HHI"), data[at : at + entry_bytes - inline]
        )
        if kind in _TYPE_CODES:
            values = at + entry_bytes - inline
            if number * _TYPE_BYTES[kind] > inline:
                (values,) = struct.unpack(order + ("Q" if big else "I"), data[values : values + inline])
            entries[tag] = (_TYPE_CODES[kind], number, values)
    end = start + entry_bytes * count
    link = data[end : end + inline]
    following = struct.unpack(order + ("Q" if big else "I"), link)[0] if len(link) == inline else 0
    return _Tags(order, entries, following)


def tiff_pages(data: bytes | bytearray) -> tuple[tuple[Page, ...], int]:
    """The frames of a TIFF, and the number of its pages that are previews or masks."""
    pages: list[Page] = []
    skipped, seen, offset = 0, set[int](), _first_directory(data)
    while offset and offset not in seen:
        seen.add(offset)
        if len(seen) > MAX_FRAMES:
            raise InputError(f"has more than {MAX_FRAMES} pages")
        tags = _tiff_tags(data, offset)
        height, width = tags.first(data, 257, 0), tags.first(data, 256, 0)
        if not height or not width:
            raise ValueError("no size")
        if pages and tags.first(data, _SUBFILE, 0) & _REDUCED_OR_MASK:
            skipped += 1
        else:
            _check_strips(data, tags)
            deep = max(tags.values(data, _BITS), default=1) > 8
            deep = deep or tags.first(data, _SAMPLE_FORMAT, 1) in (2, 3)
            orientation = tags.first(data, _ORIENTATION, 1)
            pages.append(Page((height, width), orientation if 1 <= orientation <= 8 else 1, deep, offset))
        offset = tags.following
    return tuple(pages), skipped


def _check_strips(data: bytes | bytearray, tags: _Tags) -> None:
    """Strips or tiles must lie inside the file."""
    for offsets, lengths in ((273, 279), (324, 325)):
        starts, counts = tags.values(data, offsets), tags.values(data, lengths)
        if any(start + count > len(data) for start, count in zip(starts, counts, strict=False)):
            raise InputError("the TIFF picture is cut")


def put_in_front(data: bytes | bytearray, place: int) -> None:
    """Make that page the first one, and as stored: OpenCV decodes the first one, and would turn it."""
    order, big = _tiff_layout(data)
    struct.pack_into(order + ("Q" if big else "I"), data, 8 if big else 4, place)  # type: ignore[arg-type]
    tags = _tiff_tags(data, place)
    if _ORIENTATION in tags.entries:
        code, _, start = tags.entries[_ORIENTATION]
        struct.pack_into(order + code, data, start, 1)  # type: ignore[arg-type]


def exif_orientation(exif: bytes) -> int:
    """Orientation 1..8; 1 where there is none or where the block cannot be read."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    try:
        value = _tiff_tags(exif, _first_directory(exif)).first(exif, _ORIENTATION, 1)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1
