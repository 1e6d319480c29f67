"""AVI and FLV: chunks that state their length."""

import math
import struct
from collections import Counter

import numpy as np

from geo4d.video.damage.report import Damage, broken, early
from geo4d.video.mp4 import Bytes


def check_avi(data: Bytes) -> Damage | None:
    """Damage of an AVI file, by its chunks and its index; None where they agree."""
    total = len(data)
    position = before = 0
    chunks: Counter[bytes] = Counter()
    index: Counter[bytes] | None = None
    riffs = 0
    while position + 12 <= total and data[position : position + 4] == b"RIFF":
        riffs += 1
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        open_ended = end <= position + 12  # written to a pipe, or never finished
        if end > total:
            text = early(end - total)
        else:
            text = ""
        end = total if open_ended else min(end + end % 2, total)
        position += 12
        while position + 8 <= end:
            kind = data[position : position + 4]
            size = int.from_bytes(data[position + 4 : position + 8], "little")
            if kind == b"LIST" and data[position + 8 : position + 12] in (b"movi", b"rec "):
                position += 12
                continue
            if not _is_avi_chunk(kind):
                return Damage(text or broken(position), before)
            if position + 8 + size > total:
                return Damage(text or early(position + 8 + size - total), position)
            if kind[:2].isdigit():
                chunks[kind] += 1
            elif kind == b"idx1":
                entries = np.frombuffer(data[position + 8 : position + 8 + size // 16 * 16], "S4")[::4]
                index = Counter(bytes(entry) for entry in entries if entry[:2].isdigit())
            before, position = position, position + 8 + size + size % 2
        if text:
            return Damage(text)
        position = max(position, end)
    if index is not None and riffs == 1 and index != chunks:
        listed, present = sum(index.values()), sum(chunks.values())
        return Damage(f"its index lists {listed} pieces, {present} are there")
    return None


def _is_avi_chunk(kind: bytes) -> bool:
    return len(kind) == 4 and all(0x20 <= byte < 0x7F for byte in kind)


def check_flv(data: Bytes) -> Damage | None:
    """Damage of an FLV file, by its tags; None where they follow each other to the end."""
    total = len(data)
    position = before = int.from_bytes(data[5:9], "big") + 4
    duration = last = step = 0.0
    while position < total:
        if position + 11 > total:
            return Damage(early(position + 11 - total), position)
        kind = data[position]
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        time = int.from_bytes(data[position + 4 : position + 7], "big") | data[position + 7] << 24
        if kind & 0x1F not in (8, 9, 18) or any(data[position + 8 : position + 11]):
            return Damage(broken(position), before)
        end = position + 11 + size
        if end + 4 > total:
            return Damage(early(end + 4 - total), position)
        if kind == 18 and not duration:
            content = data[position + 11 : end]
            at = content.find(b"\x00\x08duration\x00")
            if 0 <= at <= len(content) - 19:
                (duration,) = struct.unpack_from(">d", content, at + 11)
        if kind & 0x1F == 9 and size:
            step = max(step, time / 1000 - last)
            last = max(last, time / 1000)
        elif kind & 0x1F == 8:
            last = max(last, time / 1000)
        before, position = position, end + 4
    if math.isfinite(duration) and duration - last > 1.5 * step + 0.1:
        return Damage(f"its header says {duration:.2f} s, the last picture or sound stands at {last:.2f} s")
    return None
