"""Whether the bytes of a container hold together: found by walking its structure, without decoding anything.

A demuxer looks for the next good place after damage and says nothing, so that pictures are lost in silence. The chain
of elements, the check sums and the counters that a container carries tell where that happens.
"""

import math
import mmap
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geo4d.video.mp4 import Bytes, atoms, bytes_of_fragment, index_fault

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
_MATROSKA_SUMMED = {"Info", "Tracks", "Cluster"}
_AFTER_CLUSTER = {0x1A45DFA3, *_MATROSKA_TOP} - _MATROSKA_CLUSTER
"""What ends a cluster of unknown size."""


@dataclass(frozen=True)
class Damage:
    """What is wrong with a container.

    Attributes:
        text: in a few words.
        position: first byte that must not be used; None: the order of what follows is known, pictures tell the rest.
    """

    text: str
    position: int | None = None


def find_damage(path: Path, demuxer: str, video_id: int = 0) -> Damage | None:
    """The first damage in a file, or None; None also where a container has nothing to check (raw H.264).

    Args:
        demuxer: name by ``sniff_container``.
        video_id: packet identifier of the video stream; used for ``mpegts``.
    """
    check = _CHECKS.get(demuxer)
    total = path.stat().st_size
    if check is None or total == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if demuxer == "mpegts":
            return _check_mpegts(data, video_id)
        try:
            return check(data)
        except (struct.error, IndexError, KeyError, ValueError):
            return Damage("its header is damaged")


def has_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file holds the index of its pictures (``moov``), whole."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(kind == b"moov" and end <= len(data) for kind, _, end in atoms(data, 0, len(data)))


def declared_size(path: Path, demuxer: str) -> tuple[int, int] | None:
    """(width, height) in the header of an MP4, AVI or Matroska file; None when it is not found.

    FFmpeg hides a size that its decoder refuses.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        sizes: list[tuple[int, int]] = []
        if demuxer == "matroska":
            sizes = _matroska_sizes(data)
        elif demuxer == "avi" and data[12:16] == b"LIST" and data[24:28] == b"avih":
            sizes = [struct.unpack_from("<II", data, 64)]
        elif demuxer == "mp4":
            for kind, start, end in atoms(data, 0, len(data)):
                place = data.find(b"tkhd", start, end) if kind == b"moov" else -1
                while place > 0:
                    stop = place - 4 + int.from_bytes(data[place - 4 : place], "big")
                    sizes += [(w >> 16, h >> 16) for w, h in [struct.unpack(">II", data[stop - 8 : stop])]]
                    place = data.find(b"tkhd", stop, end)
        return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _matroska_sizes(data: Bytes) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    places = [(0, len(data))]
    while places:
        position, end = places.pop()
        found: dict[int, int] = {}
        while position < end:
            element = _element(data, position)
            if element is None or element[0] == 0x1F43B675:
                break
            key, start, stop = element
            stop = end if stop is None else min(stop, end)
            if key in (0x18538067, 0x1654AE6B, 0xAE, 0xE0):  # Segment, Tracks, TrackEntry, Video
                places.append((start, stop))
            elif key in (0xB0, 0xBA):  # PixelWidth, PixelHeight
                found[key] = int.from_bytes(data[start:stop], "big")
            position = stop
        if len(found) == 2:
            sizes.append((found[0xB0], found[0xBA]))
    return sizes


def _early(bytes_missing: int) -> str:
    return f"the file ends {bytes_missing} byte{'' if bytes_missing == 1 else 's'} early"


def _broken(position: int) -> str:
    return f"the structure of the file is broken at byte {position}"


# --- MP4, QuickTime -------------------------------------------------------------------------------------------------


def _check_mp4(data: Bytes) -> Damage | None:
    end = last = 0
    listed: int | None = None
    index: Damage | None = None
    fragments = False
    for kind, start, stop in atoms(data, 0, len(data)):
        end = stop
        if kind == b"moof" and stop <= len(data):
            fragments, last = True, start
            listed = bytes_of_fragment(data, start + 8, stop)
            if listed is None:
                return Damage(f"the index of the fragment at byte {start} is damaged", start)
        elif kind == b"mdat" and fragments and stop <= len(data):
            if listed is not None and 0 <= listed < stop - start - 16:
                return Damage(f"the index of the fragment at byte {last} is damaged", last)
            listed = None
        elif kind == b"moov" and (fault := index_fault(data, start + 8, min(stop, len(data)))) is not None:
            index = Damage(fault)
    if end > len(data):
        return Damage(_early(end - len(data)))
    if index is not None:
        return index
    if fragments and end < len(data) and any(data[end : end + 4096]):
        return Damage(_broken(end), last)
    return None


# --- Matroska, WebM -------------------------------------------------------------------------------------------------


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


def _check_matroska(data: Bytes) -> Damage | None:
    total = len(data)
    head = _element(data, 0)
    segment = None if head is None or head[2] is None else _element(data, head[2])
    if segment is None or segment[0] != 0x18538067:
        return Damage("its header is damaged")
    _, position, declared = segment
    if declared is not None and declared > total:
        text = _early(declared - total)
    else:
        text = ""
    end = min(declared or total, total)
    doubt: Damage | None = None
    while position < end:
        element = _element(data, position)
        name = None if element is None else _MATROSKA_TOP.get(element[0])
        if element is None or name is None:
            if declared is None and element is not None and element[0] == 0x1A45DFA3:
                break  # another recording behind a live one
            return Damage(text or _broken(position), position)
        _, start, stop = element
        if name == "Cluster":
            inner = _check_cluster(data, start, min(stop or end, end), known=stop is not None)
            if isinstance(inner, Damage):
                return Damage(text or inner.text, inner.position)
            if stop is not None and stop > end:
                return Damage(text or _early(stop - end), inner)
            stop = inner if stop is None else stop
        elif stop is None or stop > end:
            return Damage(text or _broken(position), position)
        if name in _MATROSKA_SUMMED and not _sum_is_right(data, start, stop):
            doubt = doubt or Damage(f"the check sum of the {name.lower()} at byte {position} is wrong")
        position = stop
    return Damage(text) if text else doubt


def _check_cluster(data: Bytes, position: int, end: int, known: bool) -> Damage | int:
    """Where a cluster ends, or what is wrong in it."""
    before = position
    while position < end:
        element = _element(data, position)
        if not known and element is not None and element[0] in _AFTER_CLUSTER:
            return position
        if element is None or element[0] not in _MATROSKA_CLUSTER or element[2] is None:
            return Damage(_broken(position), before)
        if element[2] > end:
            return Damage(_early(element[2] - end) if end == len(data) else _broken(position), position)
        before, position = position, element[2]
    return position


def _sum_is_right(data: Bytes, start: int, stop: int) -> bool:
    """Whether the CRC-32 that stands first in an element, if there is one, is that of the rest."""
    if stop - start < 6 or data[start] != 0xBF or data[start + 1] != 0x84:
        return True
    return zlib.crc32(data[start + 6 : stop]) == int.from_bytes(data[start + 2 : start + 6], "little")


# --- AVI ------------------------------------------------------------------------------------------------------------


def _check_avi(data: Bytes) -> Damage | None:
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
            text = _early(end - total)
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
                return Damage(text or _broken(position), before)
            if position + 8 + size > total:
                return Damage(text or _early(position + 8 + size - total), position)
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


# --- FLV ------------------------------------------------------------------------------------------------------------


def _check_flv(data: Bytes) -> Damage | None:
    total = len(data)
    position = before = int.from_bytes(data[5:9], "big") + 4
    duration = last = step = 0.0
    while position < total:
        if position + 11 > total:
            return Damage(_early(position + 11 - total), position)
        kind = data[position]
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        time = int.from_bytes(data[position + 4 : position + 7], "big") | data[position + 7] << 24
        if kind & 0x1F not in (8, 9, 18) or any(data[position + 8 : position + 11]):
            return Damage(_broken(position), before)
        end = position + 11 + size
        if end + 4 > total:
            return Damage(_early(end + 4 - total), position)
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


# --- MPEG transport and program streams -----------------------------------------------------------------------------


def _check_mpegts(data: Bytes, video_id: int) -> Damage | None:
    length, lead = next(
        (
            (length, lead)
            for length, lead in ((188, 0), (192, 4))
            if all(data[k] == 0x47 for k in range(lead, min(len(data), 3 * length), length))
        ),
        (188, 0),
    )
    count = len(data) // length
    packets = np.frombuffer(data, np.uint8, count * length).reshape(count, length)[:, lead:]
    try:
        found = _first_bad_packet(packets, video_id)
        left = len(data) - count * length
        if found is not None:
            bad, text, begins = found
            return Damage(f"{text} at byte {bad * length}", begins * length)
        if left:
            starts = np.flatnonzero(_of_stream(packets, video_id) & (packets[:, 1] & 0x40 > 0))
            return Damage(
                f"the file ends {length - left} bytes early", int(starts[-1]) * length if len(starts) else 0
            )
        return None
    finally:
        del packets  # a view of the mapped file


def _of_stream(packets: np.ndarray, video_id: int) -> np.ndarray:
    return ((packets[:, 1].astype(np.uint16) & 0x1F) << 8 | packets[:, 2]) == video_id


def _first_bad_packet(packets: np.ndarray, video_id: int) -> tuple[int, str, int] | None:
    """(packet, what is wrong with it, packet where the picture before it begins)."""
    ours = _of_stream(packets, video_id) & (packets[:, 0] == 0x47)
    chosen = np.flatnonzero(ours & (packets[:, 3] & 0x10 > 0))
    starts = chosen[packets[chosen, 1] & 0x40 > 0]
    faults: list[tuple[int, str]] = []
    unsynchronised = np.flatnonzero((packets[:, 0] != 0x47) | (packets[:, 1] & 0x80 > 0))
    if len(unsynchronised):
        faults.append((int(unsynchronised[0]), "a packet is damaged"))
    counters = packets[chosen, 3] & 0x0F
    steps = (counters[1:].astype(np.int16) - counters[:-1]) % 16
    has_field = packets[chosen, 3] & 0x20 > 0
    discontinuous = has_field & (packets[chosen, 4] > 0) & (packets[chosen, 5] & 0x80 > 0)
    gaps = np.flatnonzero((steps > 1) & ~discontinuous[1:])
    if len(gaps):
        faults.append((int(chosen[gaps[0] + 1]), "packets are missing"))
    for start in starts:
        begin = 4 + (1 + int(packets[start, 4]) if packets[start, 3] & 0x20 else 0)
        head = bytes(packets[start, begin : begin + 14])
        if len(head) >= 9 and not _is_pes(head):
            faults.append((int(start), "the header of a picture is damaged"))
            break
    if not faults:
        return None
    bad, text = min(faults)
    before = starts[starts < bad]
    return bad, text, int(before[-1]) if len(before) else 0


def _is_pes(head: bytes) -> bool:
    if head[:3] != b"\0\0\1" or head[6] & 0xC0 != 0x80:
        return False
    has_time = head[7] >> 6
    if has_time == 1:
        return False
    if has_time and len(head) >= 14:
        return head[9] >> 4 == has_time and all(head[k] & 1 for k in (9, 11, 13))
    return True


def _check_mpeg(data: Bytes) -> Damage | None:
    position = before = 0
    total = len(data)
    while position + 4 <= total:
        if data[position : position + 3] != b"\0\0\1":
            if not any(data[position : position + 65536]):
                return None  # padding behind the end
            return Damage(_broken(position), before)
        kind = data[position + 3]
        if kind == 0xB9:
            position += 4
            continue
        if kind == 0xBA:
            if position + 14 > total:
                return Damage(_early(position + 14 - total), before)
            modern = data[position + 4] & 0xC0 == 0x40
            before = position
            position += 14 + (data[position + 13] & 7) if modern else 12
            continue
        if kind < 0xBB:
            return Damage(_broken(position), before)
        if position + 6 > total:
            return Damage(_early(position + 6 - total), before)
        end = position + 6 + int.from_bytes(data[position + 4 : position + 6], "big")
        if end > total:
            return Damage(_early(end - total), before)
        position = end
    return None


# --- Ogg, ASF, MXF, IVF, YUV4MPEG, GIF ------------------------------------------------------------------------------

_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _check_ogg(data: Bytes) -> Damage | None:
    position = before = 0
    numbers: dict[bytes, int] = {}
    unfinished: dict[bytes, bool] = {}
    while position < len(data):
        head = data[position : position + 27]
        if head[:4] != b"OggS":
            return Damage(_broken(position), before)
        start = position + 27 + (head[26] if len(head) == 27 else 255)
        end = start + sum(data[position + 27 : start])
        if len(head) < 27 or end > len(data):
            return Damage(_early(max(end, start) - len(data)), before)
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


def _check_asf(data: Bytes) -> Damage | None:
    position, total = 0, len(data)
    while position + 24 <= total:
        size = int.from_bytes(data[position + 16 : position + 24], "little")
        is_data = data[position : position + 4] == b"\x36\x26\xb2\x75"
        if size < 24:
            return None if is_data else Damage(_broken(position))  # a live recording states no size
        if position + size > total:
            return Damage(_early(position + size - total))
        if is_data:
            count = int.from_bytes(data[position + 40 : position + 48], "little")
            length = (size - 50) // count if count else 0
            if length and length * count == size - 50:
                marks = np.frombuffer(data[position + 50 : position + size], np.uint8)[::length]
                bad = np.flatnonzero(marks != marks[0])
                if len(bad):
                    at = position + 50 + int(bad[0]) * length
                    return Damage(_broken(at), at)
        position += size
    return None


def _check_mxf(data: Bytes) -> Damage | None:
    position = before = 0
    while position < len(data):
        if data[position : position + 4] != b"\x06\x0e\x2b\x34":
            return Damage(_broken(position), before) if any(data[position : position + 65536]) else None
        first = data[position + 16]
        more = first & 0x7F if first & 0x80 else 0
        start = position + 17 + more
        size = int.from_bytes(data[position + 17 : start], "big") if more else first
        if start + size > len(data):
            return Damage(_early(start + size - len(data)), position)
        before, position = position, start + size
    return None


def _check_ivf(data: Bytes) -> Damage | None:
    declared = int.from_bytes(data[24:28], "little")
    position, count = int.from_bytes(data[6:8], "little"), 0
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "little")
        if end > len(data) or end == position + 12:
            text = _early(end - len(data)) if end > len(data) else _broken(position)
            return Damage(text, position)
        position, count = end, count + 1
    return Damage(f"its header says {declared} pictures, {count} are there") if count < declared else None


def _check_y4m(data: Bytes) -> Damage | None:
    position = data.find(b"\n") + 1
    words = {word[:1]: word[1:].decode("latin-1") for word in data[:position].split()[1:]}
    length = _y4m_bytes(int(words[b"W"]), int(words[b"H"]), words.get(b"C", "420"))
    while length and 0 < position < len(data):
        if data[position : position + 5] != b"FRAME":
            return Damage(_broken(position), position)
        start = data.find(b"\n", position) + 1
        if start == 0 or start + length > len(data):
            return Damage(_early(start + length - len(data)) if start else "the file ends early", position)
        position = start + length
    return None


def _y4m_bytes(width: int, height: int, colour: str) -> int:
    """Bytes of one picture; 0 for a layout that is not known here."""
    kind = colour.split("p")[0] if "p" in colour[3:] and colour[3:4] == "p" else colour
    depth = 2 if colour[3:4] == "p" and colour[4:].isdigit() and int(colour[4:]) > 8 else 1
    half = ((width + 1) // 2, (height + 1) // 2)
    chroma = {"420": half[0] * half[1], "422": half[0] * height, "444": width * height, "mono": 0}
    for name, samples in chroma.items():
        if kind == name or (name == "420" and kind in ("420jpeg", "420mpeg2", "420paldv")):
            return depth * (width * height + 2 * samples)
    return 0


def _check_gif(data: Bytes) -> Damage | None:
    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    total = len(data)
    position = 13 + table(data[10])
    picture = position  # where the picture that is being read begins, with what stands before it
    while position < total:
        kind = data[position]
        if kind == 0x3B:
            return None
        if kind == 0x21:
            position += 2
        elif kind == 0x2C:
            position += 11 + table(data[position + 9])
        else:
            return Damage(_broken(position), picture)
        while position < total and data[position]:
            position += data[position] + 1
        position += 1
        if kind == 0x2C and position <= total:
            picture = position
    return Damage("the file ends without its end mark", picture)


_CHECKS: dict[str, Callable[[Bytes], Damage | None]] = {
    "mp4": _check_mp4,
    "matroska": _check_matroska,
    "avi": _check_avi,
    "flv": _check_flv,
    "mpegts": lambda data: None,  # needs to know the stream, see ``find_damage``
    "mpeg": _check_mpeg,
    "ogg": _check_ogg,
    "asf": _check_asf,
    "mxf": _check_mxf,
    "ivf": _check_ivf,
    "yuv4mpegpipe": _check_y4m,
    "gif": _check_gif,
}
