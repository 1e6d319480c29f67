"""MPEG transport and program streams: counters and headers of packets."""

import numpy as np

from geo4d.video.damage.report import Damage, broken, early
from geo4d.video.mp4 import Bytes


def check_mpegts(data: Bytes, video_id: int) -> Damage | None:
    """Damage of an MPEG transport stream, by its packets and the counters of the stream ``video_id``."""
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


def check_mpeg(data: Bytes) -> Damage | None:
    """Damage of an MPEG programme stream, by its start codes; zeros behind the end are none."""
    position = before = 0
    total = len(data)
    while position + 4 <= total:
        if data[position : position + 3] != b"\0\0\1":
            if not any(data[position : position + 65536]):
                return None  # padding behind the end
            return Damage(broken(position), before)
        kind = data[position + 3]
        if kind == 0xB9:
            position += 4
            continue
        if kind == 0xBA:
            if position + 14 > total:
                return Damage(early(position + 14 - total), before)
            modern = data[position + 4] & 0xC0 == 0x40
            before = position
            position += 14 + (data[position + 13] & 7) if modern else 12
            continue
        if kind < 0xBB:
            return Damage(broken(position), before)
        if position + 6 > total:
            return Damage(early(position + 6 - total), before)
        end = position + 6 + int.from_bytes(data[position + 4 : position + 6], "big")
        if end > total:
            return Damage(early(end - total), before)
        position = end
    return None
