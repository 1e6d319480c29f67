"""What the records of earlier tries say about a clip as it is now, and what is written about a new one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geo4d.batch.clips import Clip
from geo4d.batch.leases import Presence
from geo4d.batch.ledger import BATCH, CLIPS, ENDED, Ledger, identity_hash, read_identity
from geo4d.batch.settings import BatchSettings
from geo4d.errors import OutputError
from geo4d.results.manifest import MANIFEST
from geo4d.results.remote_lock import owner_of


class Records:
    """The ledger as one coordinator reads and writes it.

    Args:
        output: of the batch.
        mark: hash of what decides the results.
        presence: this coordinator, and the clock.

    Attributes:
        owner: what all coordinators of this output are known by in a store; empty where results stay on the disk.
    """

    def __init__(
        self, output: Path, mark: str, options: BatchSettings, ledger: Ledger, presence: Presence
    ) -> None:
        self.output, self.mark, self.options = output, mark, options
        self.ledger, self.presence = ledger, presence
        self.started = presence.now()
        self.owner = "" if options.publish is None else owner_of(output / BATCH)

    def settled(self, clip: Clip) -> Mapping[str, Any] | None:
        """The record of a clip that has ended as it is now: same source, made in the same way, its result is there."""
        record = self._current(clip)
        if record is None or record["state"] not in ENDED:
            return None
        if record["ended"] < self.started:  # not of this run or one beside it
            if record["state"] != "done" and self.options.retry_failed:
                return None
            if record["state"] == "done" and self.options.verify:
                return None
        return record if record["state"] != "done" or self._is_there(record, clip) else None

    def _is_there(self, record: Mapping[str, Any], clip: Clip) -> bool:
        """Whether a result is where this batch puts it; a store is not asked for each of a million."""
        if self.options.publish is not None:
            return bool(record.get("published") == self.place_in_store(clip))
        return (self.output / CLIPS / clip.name / MANIFEST).is_file()

    def place_in_store(self, clip: Clip) -> str:
        """Address of a clip's result; empty where results stay on the disk."""
        return (
            "" if self.options.publish is None else f"{self.options.publish.rstrip('/')}/{CLIPS}/{clip.name}"
        )

    def tries(self, clip: Clip) -> list[dict[str, Any]]:
        """Deaths and failures of a clip that is still to be done."""
        record = self._current(clip)
        return list(record["tries"]) if record is not None and record["state"] == "pending" else []

    def write(self, clip: Clip, tries: Sequence[Mapping[str, Any]], note: Mapping[str, Any]) -> None:
        """
        Raises:
            OutputError: not writable, or the disk is full.
        """
        about = {
            "source": clip.source,
            "stamp": clip.stamp,
            "identity": self.mark,
            "tries": tries,
            "ended": self.presence.now(),
            "coordinator": self.presence.about,
        }
        self.ledger.write(clip.name, {**note, **about})

    def require_same_batch(self) -> None:
        """
        Raises:
            OutputError: another coordinator has let the batch go on with other settings.
        """
        if identity_hash(read_identity(self.output)) != self.mark:
            raise OutputError(
                f"the batch in {self.output} was meanwhile let go on with other settings (--overwrite); this one ends"
            )

    def _current(self, clip: Clip) -> Mapping[str, Any] | None:
        """The record of a clip, if it is about this source and these settings."""
        record = self.ledger.read(clip.name)
        if record is None or record.get("identity") != self.mark or record.get("stamp") != list(clip.stamp):
            return None
        return record
