"""Ogg, ASF, MXF, IVF: pages and packets."""

import zlib

import numpy as np

from geo4d.video.damage.report import Damage, broken, early
from geo4d.video.mp4 import Bytes

_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def check_ogg(data: Bytes) -> Damage | None:
    """Damage of an Ogg file, by the check sums and numbers of its pages."""
    position = before = 0
    numbers: dict[bytes, int] = {}
    unfinished: dict[bytes, bool] = {}
    while position < len(data):
        head = data[position : position + 27]
        if head[:4] != b"OggS":
            return Damage(broken(position), before)
        start = position + 27 + (head[26] if len(head) == 27 else 255)
        end = start + sum(data[position + 27 : start])
        if len(head) < 27 or end > len(data):
            return Damage(early(max(end, start) - len(data)), before)
        page = data[position : position + 22] + b"\0\0\0\0" + data[position + 26 : end]
        # The polynomial of zlib with the bits of every byte, and of the result, the other way round; starts at 0.
        crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        if int(f"{crc:032b}"[::-1], 2) != int.from_bytes(head[22:26], "little"):
            return Damage(f"the check sum of the page at byte {position} is wrong", position)
        serial, number = head[14:18], int.from_bytes(head[18:22], "little")
        if serial in numbers and number != numbers[serial] + 1:
            return Damage(f"pages are missing at byte {position}", position)
        numbers[serial] = number
        unfinished[serial] = not head[5] & 4
        before, position = position, end
    return Damage("it ends without its end mark") if any(unfinished.values()) else None


def check_asf(data: Bytes) -> Damage | None:
    """Damage of an ASF (WMV) file, by its objects and the marks of its packets."""
    position, total = 0, len(data)
    while position + 24 <= total:
        size = int.from_bytes(data[position + 16 : position + 24], "little")
        is_data = data[position : position + 4] == b"\x36\x26\xb2\x75"
        if size < 24:
            return None if is_data else Damage(broken(position))  # a live recording states no size
        if position + size > total:
            return Damage(early(position + size - total))
        if is_data:
            count = int.from_bytes(data[position + 40 : position + 48], "little")
            length = (size - 50) // count if count else 0
            if length and length * count == size - 50:
                marks = np.frombuffer(data[position + 50 : position + size], np.uint8)[::length]
                bad = np.flatnonzero(marks != marks[0])
                if len(bad):
                    at = position + 50 + int(bad[0]) * length
                    return Damage(broken(at), at)
        position += size
    return None


def check_mxf(data: Bytes) -> Damage | None:
    """Damage of an MXF file, by its keys and lengths; zeros behind the end are none."""
    position = before = 0
    while position < len(data):
        if data[position : position + 4] != b"\x06\x0e\x2b\x34":
            return Damage(broken(position), before) if any(data[position : position + 65536]) else None
        first = data[position + 16]
        more = first & 0x7F if first & 0x80 else 0
        start = position + 17 + more
        size = int.from_bytes(data[position + 17 : start], "big") if more else first
        if start + size > len(data):
            return Damage(early(start + size - len(data)), position)
        before, position = position, start + size
    return None


def check_ivf(data: Bytes) -> Damage | None:
    """Damage of an IVF file, by its frame headers and the number of pictures that it states."""
    declared = int.from_bytes(data[24:28], "little")
    position, count = int.from_bytes(data[6:8], "little"), 0
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "little")
        if end > len(data) or end == position + 12:
            text = early(end - len(data)) if end > len(data) else broken(position)
            return Damage(text, position)
        position, count = end, count + 1
    return Damage(f"its header says {declared} pictures, {count} are there") if count < declared else None
