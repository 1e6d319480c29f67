"""What a batch has come to: counts, lines of progress with the time that is left, and the exit code."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from geo4d.batch.clips import Clip
from geo4d.errors import BatchError


class Tally:
    """Counts clips as they end, and says so.

    Args:
        total: clips of this coordinator.
        say: gets lines for people.
    """

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.total = total
        self.codes: Counter[int] = Counter()
        self.skipped = self.retries = self.by_others = self.left_to_others = 0
        self._here = 0
        self._say = say
        self._started = time.monotonic()

    @property
    def ended(self) -> int:
        """Clips that have ended, here or elsewhere, now or before."""
        return sum(self.codes.values())

    @property
    def failed(self) -> int:
        """Those with another exit code than 0."""
        return self.ended - self.codes[0]

    def begin(self) -> None:
        """Say how much there is to do."""
        self._started = time.monotonic()
        self._say(
            f"{self.total} clips: {self.skipped} are complete and unchanged, {self.total - self.ended} to do"
        )

    def skip(self, record: Mapping[str, Any]) -> None:
        """A clip that had ended before; one that failed then counts as failed."""
        self.codes[int(record["exit_code"])] += 1
        self.skipped += 1

    def elsewhere(self, clip: Clip, record: Mapping[str, Any]) -> None:
        """A clip that another coordinator has ended meanwhile."""
        self.by_others += 1
        self._count(clip, record, "elsewhere: ")

    def end(self, clip: Clip, note: Mapping[str, Any]) -> None:
        """A clip that has ended here."""
        self._here += 1
        self._count(clip, note, "")

    def again(self, clip: Clip, reason: str, count: int, most: int) -> None:
        """A clip that is tried again."""
        self.retries += 1
        self._say(f"try {count} of {most} of {clip.name} failed: {reason}; it is taken up again")

    def left(self, count: int) -> None:
        """Clips that other coordinators still have at the end."""
        self.left_to_others = count

    def _count(self, clip: Clip, note: Mapping[str, Any], prefix: str) -> None:
        code = int(note["exit_code"])
        self.codes[code] += 1
        what = (
            f"exit code {code}: {note.get('reason')}"
            if code
            else f"{note['frames']} frames, {note['verdict']}"
        )
        seconds = f", {note['seconds']:.1f} s" if note.get("seconds") is not None else ""
        self._say(f"[{self.ended}/{self.total}] {clip.name}: {prefix}{what}{seconds}{self._left()}")

    def _left(self) -> str:
        done, rest = self._here + self.by_others, self.total - self.ended
        if not rest:
            return ""
        return f"; left about {_duration((time.monotonic() - self._started) / max(done, 1) * rest)}"

    def lines(self) -> list[str]:
        """What it came to."""
        parts = [
            f"{self.codes[0]} of {self.total} clips are done ({self.skipped} of all skipped as unchanged)"
        ]
        parts += [
            f"{count} ended with exit code {code}" for code, count in sorted(self.codes.items()) if code
        ]
        if self.retries:
            parts.append(f"{self.retries} tries were repeated")
        if self.left_to_others:
            parts.append(f"{self.left_to_others} are left to other coordinators")
        return ["; ".join(parts)]

    def require(self, *, keep_going: bool, where: str) -> None:
        """
        Args:
            keep_going: doubtful results that are there from before count as done, too.
            where: the table.
        Raises:
            BatchError: clips failed; with their exit code if all clips failed alike.
        """
        failed = Counter(
            {code: n for code, n in self.codes.items() if code and not (keep_going and code == 9)}
        )
        if not failed:
            return
        count = sum(failed.values())
        alike = len(failed) == 1 and count == self.total and min(failed) < 128
        message = f"{count} of {self.total} clips failed; {where} names them with their reasons"
        raise BatchError(message, min(failed) if alike else BatchError.exit_code)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
