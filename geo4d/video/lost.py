"""Pictures that a decoder swallowed: found from the times of packets and frames."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PacketTime:
    """When a packet is to be shown, in ticks of its stream."""

    pts: int | None
    dts: int | None
    discarded: bool


def first_lost(frames: list[int | None], packets: list[PacketTime], *, at_end: bool) -> int | None:
    """Number of the first frame for which there are data but no picture, or None.

    A packet without a picture is no proof by itself: hidden reference frames, second fields and frames that an edit
    list cuts off give none. It is one where the times of the pictures have a hole as well.

    Args:
        frames: times of the pictures, ticks.
        packets: times of the packets that hold data.
        at_end: all packets were decoded; else those behind the last picture are still under way.
    """
    if len(frames) < 2 or None in frames or any(packet.pts is None for packet in packets):
        return None
    shown = np.sort(np.asarray(frames, np.int64))
    coded = np.asarray([packet.pts for packet in packets if not packet.discarded], np.int64)
    step = float(np.median(np.diff(shown)))
    if step <= 0 or not len(coded):
        return None
    coded = np.unique(coded[(coded > shown[0]) & ~np.isin(coded, shown)])
    after = np.searchsorted(shown, coded)
    inside = after < len(shown)
    hole = np.where(inside, shown[np.minimum(after, len(shown) - 1)] - shown[after - 1], 0)
    missing = inside & (hole > 1.5 * step)
    if at_end:
        missing |= ~inside & (coded - shown[-1] > 0.5 * step)
    return int(after[np.argmax(missing)]) if missing.any() else None


def gap(times: list[float], demuxer: str) -> str | None:
    """A jump in the times of a stream of constant rate; only where no counter of pictures tells of lost ones."""
    if demuxer not in ("mpegts", "mpeg") or len(times) < 8:
        return None
    steps = np.diff(times)
    usual = float(np.median(steps))
    if usual <= 0 or np.mean(np.abs(steps / usual - 1) < 0.1) < 0.9:
        return None
    jumps = np.flatnonzero(steps > 1.75 * usual)
    if not len(jumps):
        return None
    count = int(np.round(steps[jumps] / usual - 1).sum())
    at = int(jumps[0])
    return f"the times jump from {times[at]:.3f} to {times[at + 1]:.3f} s: about {count} pictures are missing"


def time_of(frame: Any, before: list[float], rate: Fraction) -> float:
    """Time of a frame in seconds; one that states none comes 1 / ``rate`` after the last one."""
    if frame.time is not None:
        return float(frame.time)
    return before[-1] + float(1 / rate) if before else 0.0
