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
            if fault is None and kind == b"stbl" and _last_byte(data, begin + 8, end) > len(data):
                fault = "its index is damaged: it places pictures or sound behind the end of the file"
            if fault is None and kind == b"stbl" and (few := _too_few(data, begin + 8, end)):
                fault = f"its index is damaged: it has times for {few[1]} pictures or sounds and sizes for {few[0]}"
            if fault is None and kind == b"mdia" and _lasts_too_long(data, begin + 8, end):
                fault = "its index is damaged: its pictures together last longer than it says"
            if fault is not None:
                return fault
            continue
        count, room = 0, 0
        if kind in _TABLES and end - begin >= 16:
            (count,) = struct.unpack_from(">I", data, begin + 12)
            room = (end - begin - 16) // _TABLES[kind]
        elif kind == b"stsz" and end - begin >= 20:
            size, count = struct.unpack_from(">II", data, begin + 12)
            table = (end - begin - 20) // 4
            room = count if size else table
            if size and count > 1 and table == count:
                return "its index is damaged: stsz says that all samples are of one size, and lists sizes"
        elif kind == b"stsd" and end - begin >= 24:
            (size,) = struct.unpack_from(">I", data, begin + 16)
            if begin + 16 + size > end:
                return "its index is damaged: the description of its pictures does not fit into its place"
        if count > room:
            return f"its index is damaged: {kind.decode()} promises {count} entries and has room for {room}"
    return None


def _find(data: Bytes, start: int, stop: int, *names: bytes) -> tuple[int, int] | None:
    """(start, end) of an atom by the names on the way to it; None where it is not there."""
    for kind, begin, end in atoms(data, start, stop):
        if kind == names[0]:
            return (begin, end) if len(names) == 1 else _find(data, begin + 8, min(end, stop), *names[1:])
    return None


def _too_few(data: Bytes, start: int, stop: int) -> tuple[int, int] | None:
    """(sizes, times) that a track lists, where it lists fewer sizes by more than one."""
    steps, sizes = (_find(data, start, stop, name) for name in (b"stts", b"stsz"))
    if steps is None or sizes is None:
        return None
    times = int(_steps(data, steps[0])[:, 0].sum())
    (listed,) = struct.unpack_from(">I", data, sizes[0] + 16)
    return (listed, times) if times > listed + 1 else None


def _steps(data: Bytes, place: int) -> np.ndarray:
    """[N, 2] int64 of an ``stts``: how many samples, and the ticks from each to the next."""
    (count,) = struct.unpack_from(">I", data, place + 12)
    return np.frombuffer(data, ">u4", 2 * count, place + 16).reshape(count, 2).astype(np.int64)


def _lasts_too_long(data: Bytes, start: int, stop: int) -> bool:
    """Whether the steps from sample to sample of a track make half as much again as the length that it states.

    An editor may state less than there is, but a picture more or less and a cut end do not make half of it.
    """
    head, steps = (_find(data, start, stop, *names) for names in ((b"mdhd",), (b"minf", b"stbl", b"stts")))
    if head is None or steps is None or data[head[0] + 8] > 1 or head[1] - head[0] < 32:
        return False
    long = data[head[0] + 8] == 1
    (stated,) = struct.unpack_from(">Q" if long else ">I", data, head[0] + (32 if long else 24))
    if stated in (0, 2**32 - 1, 2**64 - 1):
        return False  # not stated
    return float(_steps(data, steps[0]).astype(np.float64).prod(1).sum()) > 1.5 * stated


def _last_byte(data: Bytes, start: int, stop: int) -> int:
    """Where the last sample ends that the tables of a track list; 0 where they list none.

    The tables hold as many entries as they promise: ``index_fault`` has looked before.
    """
    tables = {kind: (begin, end) for kind, begin, end in atoms(data, start, stop)}
    offsets, runs = tables.get(b"stco") or tables.get(b"co64"), tables.get(b"stsc")
    if offsets is None or runs is None or b"stsz" not in tables:
        return 0
    (count,) = struct.unpack_from(">I", data, offsets[0] + 12)
    width = _TABLES[b"stco" if b"stco" in tables else b"co64"]
    chunks = np.frombuffer(data, f">u{width}", count, offsets[0] + 16).astype(np.int64)
    (count,) = struct.unpack_from(">I", data, runs[0] + 12)
    table = np.frombuffer(data, ">u4", 3 * count, runs[0] + 16).reshape(count, 3).astype(np.int64)
    size, samples = struct.unpack_from(">II", data, tables[b"stsz"][0] + 12)
    if not len(chunks) or not len(table) or not samples or (np.diff(table[:, 0]) <= 0).any():
        return 0
    # Run by run: how many samples each chunk holds, then where the first sample of each chunk stands in the list.
    run = np.searchsorted(table[:, 0], np.arange(1, len(chunks) + 1), "right") - 1
    held = table[np.maximum(run, 0), 1]
    last = np.minimum(np.cumsum(held), samples)
    first = np.minimum(np.concatenate([[0], last[:-1]]), samples)
    if size:
        lengths = (last - first) * size
    else:
        sizes = np.frombuffer(data, ">u4", samples, tables[b"stsz"][0] + 20).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        lengths = ends[last] - ends[first]
    return int((chunks + lengths)[lengths > 0].max(initial=0))


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
