"""What the names of pictures say: which belong together, in which order, when they were taken, and what is missing.

Numbers in names are ordered by value: whole numbers, decimals (``0.05`` before ``0.1``), signs (``-1`` before ``0``) and
time stamps. Names that differ in more than their numbers are different sequences.
"""

import fnmatch
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import PurePath

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.times import DATE, date_to_seconds, epoch_unit, to_seconds

_INTEGER = r"[0-9]+"
_DECIMAL = r"(?:[0-9]+(?:\.[0-9]+)?|(?<![0-9A-Za-z])\.[0-9]+)"
_SIGN = r"(?:(?<![0-9A-Za-z)\]])[+-])?"
_SIGN_AFTER_LETTERS = r"(?:(?<![0-9)\]])[+-])?"
_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
_POINT_AFTER_LETTERS = _SIGN + r"(?:[0-9]+(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
_LEXERS = (_SIGN + _DECIMAL, _SIGN_AFTER_LETTERS + _DECIMAL, _SIGN_AFTER_LETTERS + _DECIMAL + _EXPONENT)
_WHOLE_LEXERS = (_SIGN + _INTEGER, _SIGN_AFTER_LETTERS + _INTEGER)

_SAME_TYPE = {
    ".jpeg": ".jpg",
    ".jpe": ".jpg",
    ".jfif": ".jpg",
    ".tiff": ".tif",
    ".apng": ".png",
    ".heif": ".heic",
}
_SAME_TYPE |= {".hif": ".heic", ".pnm": ".ppm", ".pgm": ".ppm"}

_WORDS_OF_TIME = (
    "",
    "t",
    "ts",
    "time",
    "stamp",
    "timestamp",
    "s",
    "sec",
    "frame",
    "rgb",
    "img",
    "image",
    "color",
)
"""Letters around a decimal number that may be a time in seconds."""

_GAP = 1.75
"""A step this much longer than the usual one is a gap in a list of times."""


@dataclass(frozen=True)
class _Name:
    """One file name, taken apart.

    Attributes:
        template: (what stands around the numbers, type of the picture).
        texts: the numbers as they are written.
        values: the numbers.
        around: what stands before, between and behind the numbers.
    """

    template: tuple[str, str]
    texts: tuple[str, ...]
    values: tuple[Decimal, ...]
    around: tuple[str, ...]

    def pattern(self, running: int | None = None) -> str:
        """The pattern of names like this one: any number for all numbers, or for that one."""
        texts = ["#" if running in (None, i) else text for i, text in enumerate(self.texts)]
        return "".join(part for pair in zip(self.around, [*texts, ""], strict=True) for part in pair)


@dataclass(frozen=True)
class Order:
    """How pictures follow each other.

    Attributes:
        names: in order.
        times_s: [N] seconds, where the names are times.
        numbers: [N] whole numbers of the names, where they have one.
        notes: statements: what the order goes by, what is missing.
    """

    names: tuple[str, ...]
    times_s: np.ndarray | None
    numbers: np.ndarray | None
    notes: tuple[str, ...]


def order_names(names: Sequence[str], *, mixed: bool = False) -> Order:
    """Pictures of one sequence in order.

    Args:
        names: file names, all different.
        mixed: take several sequences together, in order of name.
    Raises:
        InputError: several sequences or types; the message shows how to choose one.
    """
    parsed = dict(zip(names, _take_apart(names), strict=True))
    ordered = sorted(names, key=lambda name: (parsed[name].template, parsed[name].values, name))
    if mixed:
        ordered.sort(key=_natural_key)
        groups = len({parsed[name].template for name in ordered})
        together = (f"{groups} kinds of names are taken together, in order of name",) if groups > 1 else ()
        return Order(tuple(ordered), None, None, together)
    templates = Counter(parsed[name].template for name in ordered)
    if len(templates) > 1:
        if max(templates.values()) > 1 or len({suffix for _, suffix in templates}) > 1:
            raise _several(ordered, parsed)
        return Order(
            tuple(sorted(names, key=_natural_key)),
            None,
            None,
            ("names have no common numbering; the pictures are in order of name",) if len(names) > 1 else (),
        )
    if len(ordered) == 1:
        return Order(tuple(ordered), None, None, ())
    values = [parsed[name].values for name in ordered]
    for first, second in pairwise(ordered):
        if parsed[first].values == parsed[second].values:
            raise InputError(
                f"{first} and {second} have the same number, so their order is open; rename one, choose names "
                "with --pictures PATTERN, or take all in order of name with --pictures '*'"
            )
    varying = [i for i in range(len(values[0])) if len({value[i] for value in values}) > 1]
    for i in varying:
        if any(b[i] < a[i] for a, b in pairwise(values)):
            raise _several(ordered, parsed)
    texts = [parsed[name].texts for name in ordered]
    times_s, note = _times(texts, varying, parsed[ordered[0]].template[0])
    notes = [note] if note else []
    numbers = None
    whole = [i for i in varying if all(value[i] == int(value[i]) for value in values)]
    if times_s is not None:
        notes += time_gaps(times_s, ordered)
    elif whole:
        numbers = np.array([int(value[whole[-1]]) for value in values], object)
        notes += _number_gaps(numbers, ordered)
    else:
        notes.append(
            f"the names are decimal numbers; pictures follow by value, {ordered[0]} to {ordered[-1]}"
        )
    return Order(tuple(ordered), times_s, numbers, tuple(notes))


def matches(name: str, pattern: str) -> bool:
    """Whether a file name fits a pattern: ``*`` is anything, ``?`` one character, ``#`` a number or a date."""
    parts = [fnmatch.translate(part).removesuffix(r"\Z").removesuffix(r"\z") for part in pattern.split("#")]
    return (
        re.fullmatch(rf"(?:#|{DATE.pattern}|[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)".join(parts), name) is not None
    )


def time_gaps(times_s: np.ndarray, names: Sequence[str]) -> list[str]:
    """A statement of the gaps in a list of increasing times, if there are any."""
    steps = np.diff(times_s)
    usual = float(np.median(steps)) if len(steps) > 1 else np.inf
    gaps = np.flatnonzero(steps > _GAP * usual)
    if not len(gaps):
        return []
    longest = int(gaps[np.argmax(steps[gaps])])
    return [
        f"the times have {len(gaps)} gap{'s' if len(gaps) > 1 else ''}: the usual step is {usual:.4g} s, the longest "
        f"{steps[longest]:.4g} s, after {names[longest]}"
    ]


def _natural_key(name: str) -> tuple:
    """Whole numbers by value, all else by letters."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts if part), name


def _take_apart(names: Sequence[str]) -> list[_Name]:
    """The reading of the names under which they have the fewest templates; the plainest of those."""
    dates = [_date(name) for name in names]
    if all(date is not None for date in dates):
        return [date for date in dates if date is not None]
    best: list[_Name] | None = None
    for lexers in (_LEXERS, _WHOLE_LEXERS):
        for lexer in lexers:
            parsed = [_parse(name, lexer) for name in names]
            if lexers is _LEXERS and not _are_decimals(parsed):
                continue
            if best is None or len({p.template for p in parsed}) < len({p.template for p in best}):
                best = parsed
        if best is not None and _padding_differs(best):
            pointed = [_parse(name, _POINT_AFTER_LETTERS) for name in names]
            if _are_decimals(pointed) and not _padding_differs(pointed):
                best = pointed
        if best is not None:
            return _join_seconds(best)
    raise AssertionError("whole numbers can always be read")


def _join_seconds(parsed: list[_Name]) -> list[_Name]:
    """Names with seconds and their thousandths to billionths as two numbers, as ROS writes them, have one number."""
    if len({p.template for p in parsed}) > 1:
        return parsed
    for i in range(len(parsed[0].texts) - 1):
        pairs = [p.texts[i : i + 2] for p in parsed]
        seconds = epoch_unit([a for a, _ in pairs]) == "seconds" and not any("." in a for a, _ in pairs)
        if seconds and len({len(b) for _, b in pairs}) == 1 and len(pairs[0][1]) in (3, 6, 9):
            joined = []
            for p, (a, b) in zip(parsed, pairs, strict=True):
                texts = (*p.texts[:i], a + b, *p.texts[i + 2 :])
                around = p.around[: i + 1] + p.around[i + 2 :]
                joined.append(_Name(p.template, texts, tuple(Decimal(text) for text in texts), around))
            return joined
    return parsed


def _are_decimals(parsed: Sequence[_Name]) -> bool:
    """Whether numbers with a point are decimals, and not two numbers as in ``take2.9``, ``take2.10``."""
    if len({(p.template, p.values) for p in parsed}) < len(parsed):
        return False
    fractions = [text.partition(".")[2] for p in parsed for text in p.texts if "." in text]
    return len({len(f) for f in fractions}) < 2 or not any(len(f) > 1 and f.endswith("0") for f in fractions)


def _padding_differs(parsed: Sequence[_Name]) -> bool:
    """Whether whole numbers are padded in some names and shorter in others, as in ``f.05``, ``f.1``: nobody counts so."""
    if len({p.template for p in parsed}) > 1:
        return False
    for i in range(len(parsed[0].texts)):
        column = [p.texts[i] for p in parsed if p.texts[i].isdecimal()]
        padded = [len(text) for text in column if len(text) > 1 and text.startswith("0")]
        if padded and min(map(len, column)) < max(padded):
            return True
    return False


def _parse(name: str, lexer: str) -> _Name:
    stem, suffix, kind = _split(name)
    texts = tuple(re.findall(lexer, stem))
    around = re.split(lexer, stem)
    template = "#".join(around).lower(), kind
    around[-1] += suffix
    return _Name(template, texts, tuple(Decimal(text) for text in texts), tuple(around))


def _date(name: str) -> _Name | None:
    """A name that holds a date and time; None for others."""
    stem, suffix, kind = _split(name)
    match = DATE.search(stem)
    seconds = date_to_seconds(match[0]) if match else None
    if match is None or seconds is None:
        return None
    before, after = stem[: match.start()], _parse(stem[match.end() :] + suffix, _INTEGER)
    template = f"{before}#{after.template[0]}".lower(), kind
    values = (Decimal(repr(seconds)), *after.values)
    return _Name(template, (match[0], *after.texts), values, (before, *after.around))


def _split(name: str) -> tuple[str, str, str]:
    """Stem, suffix and type of a file name."""
    suffix = PurePath(name).suffix
    kind = suffix.lower()
    return name.removesuffix(suffix), suffix, _SAME_TYPE.get(kind, kind)


def _times(
    texts: Sequence[tuple[str, ...]], varying: Sequence[int], template: str
) -> tuple[np.ndarray | None, str | None]:
    """[N] seconds where one of the numbers is a time, and a statement of it."""
    for i in varying:
        column = [text[i] for text in texts]
        if all(date_to_seconds(text) is not None for text in column) or epoch_unit(column):
            times_s, unit = to_seconds(column)
            if (np.diff(times_s) > 0).all():
                return times_s, f"times are those of the names ({unit})"
    letters = re.sub("[^a-z]", "", template)
    if len(varying) == 1 and letters in _WORDS_OF_TIME and any("." in text[varying[0]] for text in texts):
        times_s = np.array([float(text[varying[0]]) for text in texts])
        return times_s, "times are those of the names, taken as seconds"
    return None, None


def _number_gaps(numbers: np.ndarray, names: Sequence[str]) -> list[str]:
    steps = np.diff(numbers)
    (usual, count), *_ = Counter(steps.tolist()).most_common(1)
    gaps = np.flatnonzero(steps > usual)
    if len(steps) > 2 and 2 * count < len(steps):
        return [f"the numbers of the pictures are not evenly spaced: steps of {min(steps)} to {max(steps)}"]
    if not len(gaps):
        return [] if usual == 1 else [f"the pictures are numbered in steps of {usual}"]
    missing = sum(-(-int(steps[i]) // usual) - 1 for i in gaps)
    first = int(gaps[0])
    return [
        f"the numbering has gaps: {missing} number{'s are' if missing > 1 else ' is'} missing, the first after "
        f"{names[first]} (next is {names[first + 1]}); frames are counted as if there were none"
    ]


def _several(ordered: Sequence[str], parsed: dict[str, _Name]) -> InputError:
    """The error that shows the sequences and how to choose one."""
    first = parsed[ordered[0]]
    groups: dict[tuple, list[str]] = {}
    running: int | None = None
    if all(parsed[name].template == first.template for name in ordered):

        def others(name: str, i: int) -> tuple[Decimal, ...]:
            return parsed[name].values[:i] + parsed[name].values[i + 1 :]

        # The number that runs is the one without which the fewest different names remain.
        count = range(len(first.values))
        running = min(count, key=lambda i: len({others(name, i) for name in ordered}))
        for name in ordered:
            groups.setdefault(others(name, running), []).append(name)
    else:
        for name in ordered:
            groups.setdefault(parsed[name].template, []).append(name)
    shown = sorted(groups.values(), key=len, reverse=True)
    patterns = [parsed[group[0]].pattern(running) for group in shown]
    listed = ", ".join(
        f"{pattern} ({len(group)})" for pattern, group in zip(patterns[:4], shown, strict=False)
    )
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return InputError(
        f"holds {len(shown)} sequences or types of pictures: {listed}{more}; choose one with "
        f"--pictures '{patterns[0]}' (# is a number, * anything), or take all in order of name with --pictures '*'"
    )
