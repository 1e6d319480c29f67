"""The atoms of MP4 and QuickTime files: their chain, and what the index of pictures promises."""

import mmap
import struct
from collections.abc import Iterator

import numpy as np

Bytes = bytes | mmap.mmap

_INSIDE = (b"trak", b"mdia", b"minf", b"stbl")
_REQUIRED = {
    b"mdia": ((b"mdhd",), (b"hdlr",), (b"minf",)),
    b"stbl": ((b"stsd",), (b"stts",), (b"stsc",), (b"stsz", b"stz2"), (b"stco", b"co64")),
}
"""Atom -> what must stand in it: one of each group."""
_TABLES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4}
"""Atom -> bytes of an entry; each begins with version and flags, and the number of entries."""


def atoms(data: Bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the atoms in a range; the last one may end behind it. Stops where the chain breaks."""
    position = start
    while position + 8 <= stop:
        size, kind = struct.unpack_from(">I4s", data, position)
        if size == 1 and position + 16 <= stop:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        elif size == 0:
            size = stop - position
        if size < 8 or not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind):
            return
        yield kind, position, position + size
        position += size


def index_fault(data: Bytes, start: int, stop: int) -> str | None:
    """What is wrong with the index (in ``moov``): a table is missing, or promises more entries than it has room for,
    which decoders take memory for."""
    for kind, begin, end in atoms(data, start, stop):
        end = min(end, stop)
        inside = {name for name, _, _ in atoms(data, begin + 8, end)} if kind in _REQUIRED else set()
        for names in _REQUIRED.get(kind, ()):
            if not any(name in inside for name in names):
                return f"its index is damaged: {kind.decode()} has no {names[0].decode()}"
        if kind in _INSIDE:
            fault = index_fault(data, begin + 8, end)
            if fault is not None:
                return fault
            continue
        count, room = 0, 0
        if kind in _TABLES and end - begin >= 16:
            (count,) = struct.unpack_from(">I", data, begin + 12)
            room = (end - begin - 16) // _TABLES[kind]
        elif kind == b"stsz" and end - begin >= 20:
            size, count = struct.unpack_from(">II", data, begin + 12)
            room = count if size else (end - begin - 20) // 4
        if count > room:
            return f"its index is damaged: {kind.decode()} promises {count} entries and has room for {room}"
    return None


def bytes_of_fragment(data: Bytes, position: int, end: int) -> int | None:
    """Bytes of samples that a movie fragment lists; -1 where they are not stated here, None when it is damaged."""
    total = 0
    default = -1
    while position < end:
        if position + 8 > end:
            return None
        size, kind = struct.unpack_from(">I4s", data, position)
        if size < 8 or position + size > end or not all(0x20 <= byte < 0x7F for byte in kind):
            return None
        flags = int.from_bytes(data[position + 9 : position + 12], "big") if size >= 12 else 0
        inner = 0
        if kind == b"traf":
            found = bytes_of_fragment(data, position + 8, position + size)
            if found is None:
                return None
            inner = found
        elif kind == b"tfhd" and flags & 0x10:
            at = position + 16 + 8 * (flags & 1) + 2 * (flags & 2) + (flags & 8) // 2
            (default,) = struct.unpack_from(">I", data, at)
        elif kind == b"trun":
            (count,) = struct.unpack_from(">I", data, position + 12)
            words = bin(flags & 0xF00).count("1")
            start = position + 16 + 4 * (flags & 1) + (flags & 4)
            if start + 4 * words * count > position + size:
                return None
            if flags & 0x200:
                table = np.frombuffer(data[start : start + 4 * words * count], ">u4").reshape(count, words)
                inner = int(table[:, flags >> 8 & 1].sum(dtype=np.int64))
            else:
                inner = default * count if default >= 0 else -1
        total = -1 if total < 0 or inner < 0 else total + inner
        position += size
    return total
