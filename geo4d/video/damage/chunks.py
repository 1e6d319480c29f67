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


_SOUND = 4
"""In the header of an FLV file: it holds sound."""


def check_flv(data: Bytes) -> Damage | None:
    """Damage of an FLV file, by its tags; None where they follow each other to the end."""
    total = len(data)
    position = before = int.from_bytes(data[5:9], "big") + 4
    duration = last = step = 0.0
    behind: list[tuple[bool, int]] = []
    pictures: list[tuple[int, int, int]] = []
    sounds: list[tuple[int, int, int]] = []
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
            pictures.append((_picture_codec(data[position + 11]), position, before))
        elif kind & 0x1F == 8:
            last = max(last, time / 1000)
            sounds.append((data[position + 11] >> 4 if size else -1, position, before))
        behind.append((int.from_bytes(data[end : end + 4], "big") == 11 + size, end + 4))
        before, position = position, end + 4
    if not data[4] & _SOUND and len(sounds) * 20 < len(behind):
        pictures += [(-1, place, before) for _, place, before in sounds]  # their kind is damaged
    fault = _odd_size(behind) or _odd_one(sorted(pictures, key=lambda tag: tag[1])) or _odd_one(sounds)
    if fault is not None:
        return fault
    if math.isfinite(duration) and duration - last > 1.5 * step + 0.1:
        return Damage(f"its header says {duration:.2f} s, the last picture or sound stands at {last:.2f} s")
    return None


def _odd_size(behind: list[tuple[bool, int]]) -> Damage | None:
    """The first tag that is not followed by its own length, in a file where nearly all are (not all writers do it).

    Args:
        behind: whether it is, and the place behind it, for every tag.
    """
    odd = [place for agrees, place in behind if not agrees]
    return Damage(broken(odd[0] - 4), odd[0]) if odd and len(odd) * 20 < len(behind) else None


def _odd_one(tags: list[tuple[int, int, int]]) -> Damage | None:
    """The first tag of another codec than nearly all others of its kind: decoders pass over it without a word.

    Args:
        tags: codec, place of the tag and place of the tag before.
    """
    if not tags:
        return None
    ((usual, count),) = Counter(codec for codec, _, _ in tags).most_common(1)
    if count * 20 <= len(tags) * 19:
        return None  # several codecs in turn: not by damage
    return next((Damage(broken(place), before) for codec, place, before in tags if codec != usual), None)


def _picture_codec(head: int) -> int:
    """By the first byte of a picture; 0x80 for all codecs that are named by four letters behind it, -1 for no picture."""
    if not 1 <= head >> 4 & 7 <= 5:
        return -1
    return 0x80 if head & 0x80 else head & 0x0F
