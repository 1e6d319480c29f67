"""Times of frames: lists in text files (TUM, EuRoC, KITTI, one time a line), dates, and whole numbers since 1970."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.files import existing_file

UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""Name -> how many of them are a second."""

_ABBREVIATIONS = {"[s]": "seconds", "[ms]": "milliseconds", "[us]": "microseconds", "[ns]": "nanoseconds"}
_EPOCH_S = (6.3e8, 4.1e9)
"""1990 to 2100, seconds since 1970."""

DATE = re.compile(
    r"(?<![0-9])(19[7-9][0-9]|20[0-9]{2})[-_.:]?([01][0-9])[-_.:]?([0-3][0-9])[-_ T.]?"
    r"([0-2][0-9])[-_.:h]?([0-5][0-9])[-_.:m]?([0-5][0-9])(?:[-_.,]([0-9]{1,9}))?(?![0-9])"
)
"""Year to second, with or without separators, and a fraction of a second."""


@dataclass(frozen=True)
class FrameTimes:
    """What a list of times says.

    Attributes:
        times_s: [N] seconds, in the order of the lines.
        names: [N] file names as they stand in the lines, or None where lines hold a time only.
        unit: in which the times are written.
    """

    times_s: np.ndarray
    names: tuple[str, ...] | None
    unit: str


def load_frame_times(path: str | Path, unit: str | None = None) -> FrameTimes:
    """Times from lines of ``time``, ``time name`` (TUM), ``time,name`` (EuRoC) or a date (KITTI raw).

    The unit is seconds, unless a head line names another (``[ns]``) or the times are whole numbers that are dates between
    1990 and 2100 in milli-, micro- or nanoseconds since 1970. ``#`` starts a comment.

    Args:
        unit: a key of ``UNITS``, where the format fixes it.
    Raises:
        InputError: missing, empty, a line that is none of these, or only some lines with a name.
    """
    path = existing_file(path, "a list of times")
    words: list[str] = []
    names: list[str] = []
    stated: str | None = None
    try:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        text, _, comment = line.partition("#")
        text = text.lstrip("\ufeff").strip()
        head = text if text else comment
        if not words and not is_time(head):
            stated = next((name for mark, name in _ABBREVIATIONS.items() if mark in head.lower()), stated)
            if not re.search("[0-9]", text):
                continue
        if not text:
            continue
        time, name = _split(text)
        if not is_time(time) or (words and bool(name) != bool(names)):
            raise InputError(
                f"expected a time, or 'time name' as in the lines before, in line {number} of {path}, "
                f"got {line.strip()[:60]!r}"
            )
        words.append(time)
        if name:
            names.append(name)
    if not words:
        raise InputError(f"expected times in {path}, one a line; it holds none")
    try:
        times_s, written = to_seconds(words, unit or stated)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return FrameTimes(times_s, tuple(names) or None, written)


def is_time(text: str) -> bool:
    """Whether a text is a number or a date."""
    if DATE.fullmatch(text):
        return True
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def to_seconds(texts: Sequence[str], unit: str | None = None) -> tuple[np.ndarray, str]:
    """[N] float64 seconds from numbers or dates, and the unit they are in (``dates`` for dates).

    Args:
        unit: a key of ``UNITS``, or None: whole numbers since 1970 are recognised, anything else is seconds.
    Raises:
        ValueError: a text that is neither a number nor a date.
    """
    dates = [date_to_seconds(text) for text in texts]
    if texts and all(date is not None for date in dates):
        return np.array(dates, np.float64), "dates"
    if unit is None:
        unit = epoch_unit(texts) or "seconds"
    # Whole numbers of nanoseconds have 19 digits: divided as integers, they lose none before the last rounding.
    values = [
        int(text) / UNITS[unit] if re.fullmatch("[+-]?[0-9]+", text) else float(text) / UNITS[unit]
        for text in texts
    ]
    return np.array(values, np.float64), unit


def epoch_unit(texts: Sequence[str]) -> str | None:
    """Unit of numbers that are all moments between 1990 and 2100 since 1970, or None where they are not."""
    whole = all(re.fullmatch("[0-9]+", text) for text in texts)
    for unit, per_second in UNITS.items():
        if unit != "seconds" and not whole:
            break
        try:
            values = [float(text) / per_second for text in texts]
        except ValueError:
            return None
        if texts and all(_EPOCH_S[0] <= value <= _EPOCH_S[1] for value in values):
            return unit
    return None


def date_to_seconds(text: str) -> float | None:
    """Seconds since 1970 of a date (taken as universal time), or None."""
    match = DATE.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime(*(int(match[i]) for i in range(1, 7)), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        return None
    return moment.timestamp() + (float(f"0.{match[7]}") if match[7] else 0.0)


def _split(text: str) -> tuple[str, str]:
    """(time, name) of a line; the name is empty where there is none."""
    if DATE.fullmatch(text):
        return text, ""
    words = text.replace(",", " ").split()
    if len(words) == 4 and is_time(words[2]):
        return words[0], words[1]  # a TUM association: time and file of colour, then of depth
    time, _, name = re.sub(r"\s*,\s*", " ", text, count=1).partition(" ")
    return time.strip(), name.strip().rstrip(",").strip()
