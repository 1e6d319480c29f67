"""Matroska and WebM: the chain of elements and their CRC-32."""

import zlib
from collections.abc import Iterator

from geo4d.video.damage.report import Damage, broken, early
from geo4d.video.mp4 import Bytes

_MATROSKA_TOP = {
    0x114D9B74: "SeekHead",
    0x1549A966: "Info",
    0x1654AE6B: "Tracks",
    0x1F43B675: "Cluster",
    0x1C53BB6B: "Cues",
    0x1941A469: "Attachments",
    0x1043A770: "Chapters",
    0x1254C367: "Tags",
    0xEC: "Void",
    0xBF: "CRC-32",
}
_MATROSKA_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF}
_BLOCKS = {0xA3, 0xA0}
"""SimpleBlock and BlockGroup: what holds pictures and sound."""
_NUMBERS = {0xE7, 0xA7, 0xAB}
"""Timestamp, Position, PrevSize of a cluster: at most 8 bytes."""

_MATROSKA_SUMMED = {"Info", "Tracks", "Cluster"}
_AFTER_CLUSTER = {0x1A45DFA3, *_MATROSKA_TOP} - _MATROSKA_CLUSTER
"""What ends a cluster of unknown size."""


def matroska_sizes(data: Bytes) -> list[tuple[int, int]]:
    """(width, height) of the video tracks of a Matroska or WebM file as its header states them."""
    sizes: list[tuple[int, int]] = []
    places = [(0, len(data))]
    while places:
        found: dict[int, int] = {}
        for key, start, stop in _children(data, *places.pop()):
            if key == 0x1F43B675:  # Cluster
                break
            if key in (0x18538067, 0x1654AE6B, 0xAE, 0xE0):  # Segment, Tracks, TrackEntry, Video
                places.append((start, stop))
            elif key in (0xB0, 0xBA):  # PixelWidth, PixelHeight
                found[key] = int.from_bytes(data[start:stop], "big")
        if len(found) == 2:
            sizes.append((found[0xB0], found[0xBA]))
    return sizes


def _lacing_of_tracks(data: Bytes, start: int, end: int) -> dict[int, bool]:
    """Number of each entry of a Tracks element, and whether its blocks may hold several pieces (laces)."""
    lacing = {}
    for entry, inside, behind in _children(data, start, end):
        if entry != 0xAE:  # TrackEntry
            continue
        numbers = {key: data[first:stop] for key, first, stop in _children(data, inside, behind)}
        if 0xD7 in numbers:  # TrackNumber; FlagLacing is 1 where it is not stated
            lacing[int.from_bytes(numbers[0xD7], "big")] = numbers.get(0x9C, b"\1") != b"\0"
    return lacing


def _children(data: Bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(identifier, start, end) of the elements in a range, one of unknown size reaching to its end; until one is none."""
    while position < end:
        element = _element(data, position)
        if element is None:
            return
        key, start, stop = element
        stop = end if stop is None else min(stop, end)
        yield key, start, stop
        position = stop


def _element(data: Bytes, position: int) -> tuple[int, int, int | None] | None:
    """(identifier, start of the content, end of it or None when unknown) of an EBML element; None: there is none."""
    if position >= len(data) or not data[position]:
        return None
    length = 9 - data[position].bit_length()
    if length > 4:
        return None
    key = int.from_bytes(data[position : position + length], "big")
    position += length
    if position >= len(data) or not data[position]:
        return None
    length = 9 - data[position].bit_length()
    mask = (1 << 7 * length) - 1
    if position + length > len(data):
        return None
    size = int.from_bytes(data[position : position + length], "big") & mask
    position += length
    return key, position, None if size == mask else position + size


def check_matroska(data: Bytes) -> Damage | None:
    """Damage of a Matroska or WebM file, by its elements; None where they fill the file."""
    total = len(data)
    head = _element(data, 0)
    segment = None if head is None or head[2] is None else _element(data, head[2])
    if segment is None or segment[0] != 0x18538067:
        return Damage("its header is damaged")
    _, position, declared = segment
    if declared is not None and declared > total:
        text = early(declared - total)
    else:
        text = ""
    end = min(declared or total, total)
    doubt: Damage | None = None
    lacing: dict[int, bool] = {}
    while position < end:
        element = _element(data, position)
        name = None if element is None else _MATROSKA_TOP.get(element[0])
        if element is None or name is None:
            if declared is None and element is not None and element[0] == 0x1A45DFA3:
                break  # another recording behind a live one
            return Damage(text or broken(position), position)
        _, start, stop = element
        if name == "Cluster":
            inner = _check_cluster(data, start, min(stop or end, end), lacing, known=stop is not None)
            if isinstance(inner, Damage):
                return Damage(text or inner.text, inner.position)
            if stop is not None and stop > end:
                return Damage(text or early(stop - end), inner)
            stop = inner if stop is None else stop
        elif stop is None or stop > end:
            return Damage(text or broken(position), position)
        if name == "Tracks":
            lacing |= _lacing_of_tracks(data, start, stop)
        if name in _MATROSKA_SUMMED and not _sum_is_right(data, start, stop):
            doubt = doubt or Damage(f"the check sum of the {name.lower()} at byte {position} is wrong")
        position = stop
    return Damage(text) if text else doubt


def _check_cluster(
    data: Bytes, position: int, end: int, lacing: dict[int, bool], known: bool
) -> Damage | int:
    """Where a cluster ends, or what is wrong in it.

    Args:
        lacing: by number of a track whether its blocks may be laced; empty: not known.
        known: its size is stated.
    """
    before = position
    while position < end:
        element = _element(data, position)
        if not known and element is not None and element[0] in _AFTER_CLUSTER:
            return position
        if element is None or element[0] not in _MATROSKA_CLUSTER or element[2] is None:
            return Damage(broken(position), before)
        key, start, stop = element[0], element[1], element[2]
        if stop > end:
            return Damage(early(stop - end) if end == len(data) else broken(position), position)
        if key in _NUMBERS and stop - start > 8:
            return Damage(broken(position), position)
        if lacing and key in _BLOCKS and (fault := _block_fault(data, key, start, stop, lacing)) is not None:
            return Damage(f"the block at byte {position} {fault}", position)
        before, position = position, stop
    return position


def _block_fault(data: Bytes, key: int, start: int, stop: int, lacing: dict[int, bool]) -> str | None:
    """What the head of a block cannot be: a track that does not exist, pieces where there are none; or None."""
    if key == 0xA0:  # BlockGroup: in its Block
        inside = (found for found in _children(data, start, stop) if found[0] == 0xA1)
        _, start, stop = next(inside, (0, start, start))
    if start >= stop or not data[start]:
        return "belongs to no track"
    length = 9 - data[start].bit_length()
    track = int.from_bytes(data[start : start + length], "big") & ((1 << 7 * length) - 1)
    if track not in lacing or start + length + 3 > stop:
        return "belongs to no track"
    if data[start + length + 2] & 6 and not lacing[track]:
        return "says that it holds several pieces"
    return None


def _sum_is_right(data: Bytes, start: int, stop: int) -> bool:
    """Whether the CRC-32 that stands first in an element, if there is one, is that of the rest."""
    if stop - start < 6 or data[start] != 0xBF or data[start + 1] != 0x84:
        return True
    return zlib.crc32(data[start + 6 : stop]) == int.from_bytes(data[start + 2 : start + 6], "little")
