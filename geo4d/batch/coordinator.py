"""One coordinator of a batch: takes clips that nobody has, gives them to workers, and notes what became of them."""

import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo4d.batch.clips import Clip
from geo4d.batch.engine import Engine, Event
from geo4d.batch.leases import Lease, Leases
from geo4d.batch.ledger import CLIPS, ENDED, Ledger, identity_hash, read_identity
from geo4d.batch.one import Task
from geo4d.batch.settings import BatchSettings
from geo4d.batch.stores import fetch, needs_fetching
from geo4d.batch.summary import Summary
from geo4d.batch.tally import Tally
from geo4d.errors import DiskFull, Geo4DError, OutputError, explain
from geo4d.results.manifest import MANIFEST

POLL_S, IDLE_S = 0.5, 5.0
"""Seconds between looks at clips that others hold and at what was fetched; and where there is none, at lost leases."""


@dataclass
class Held:
    """A clip that this coordinator has the lease of.

    Attributes:
        tries: how earlier tries ended.
        fetching: becomes the path of the source.
        task: what a worker has of it.
    """

    clip: Clip
    lease: Lease
    tries: list[dict[str, Any]]
    fetching: Future[Path]
    task: Task | None = None


class Coordinator:
    """Takes, gives out and records clips.

    Args:
        output: of the batch.
        mark: hash of what decides the results.
        clips: that this coordinator may take.
        engine: with one worker that is ready.
        work: folder for what is fetched.
        say: gets lines for people.
        keep_going: a doubtful result is no failure.
    """

    def __init__(
        self,
        output: Path,
        mark: str,
        clips: Sequence[Clip],
        options: BatchSettings,
        engine: Engine,
        ledger: Ledger,
        leases: Leases,
        work: Path,
        say: Callable[[str], None],
        *,
        keep_going: bool = False,
    ) -> None:
        self.keep_going = keep_going
        self.output, self.mark, self.options = output, mark, options
        self.engine, self.ledger, self.leases, self.work = engine, ledger, leases, work
        self.summary = Summary(output, options.table)
        self.started = leases.presence.now()
        self.tally = Tally(len(clips), say)
        self.held: dict[str, Held] = {}
        self.elsewhere: dict[str, Clip] = {}
        self.waiting: deque[Clip] = deque()
        self.stopped: Geo4DError | None = None
        self._next_look = 0.0
        self._fetchers = ThreadPoolExecutor(max(2, options.workers), "fetch")
        self._most_held = options.workers * (2 if any(map(needs_fetching, clips)) else 1)
        ledger.scan()
        for clip in clips:
            record = ledger.records.get(clip.name)
            if record is not None and self.is_settled(clip, record):
                self.tally.skip(record)
            else:
                self.waiting.append(clip)

    def run(self) -> None:
        """Work until every clip has ended, or, without ``wait``, until the rest is in other hands.

        Raises:
            DiskFull: the disk is full; clips in work are given back.
            OutputError: the batch was begun anew with other settings meanwhile.
        """
        self.tally.begin()
        for number in range(1, min(self.options.workers, len(self.waiting))):
            self.engine.start(number)
        try:
            while True:
                self._take()
                self._give_out()
                if not self.held and (
                    self.stopped is not None or not (self.waiting or self._look_elsewhere())
                ):
                    break
                for event in self.engine.wait(POLL_S if self._must_look() else IDLE_S):
                    self._handle(event)
                self._drop_lost()
                self.summary.update(self.ledger.scan)
        finally:
            self._fetchers.shutdown(cancel_futures=True)
            self.summary.update(self.ledger.scan, now=True)
        if self.stopped is not None:
            raise self.stopped

    def is_settled(self, clip: Clip, record: Mapping[str, Any]) -> bool:
        """Whether a clip has ended as it is now: the same source, made in the same way, and its result is there."""
        if record["state"] not in ENDED or not self._is_of(clip, record):
            return False
        mine = record["ended"] >= self.started
        if record["state"] != "done":
            return mine or not self.options.retry_failed
        return (mine or not self.options.verify) and (self.output / CLIPS / clip.name / MANIFEST).is_file()

    def _is_of(self, clip: Clip, record: Mapping[str, Any]) -> bool:
        return record.get("identity") == self.mark and record.get("stamp") == list(clip.stamp)

    def _must_look(self) -> bool:
        """Whether something may change that no worker tells."""
        return bool(self.waiting or self.elsewhere) or any(
            not held.fetching.done() for held in self.held.values()
        )

    def _look_elsewhere(self) -> bool:
        """Whether clips that others hold are waited for; now and then they come back among those to take."""
        if not self.options.wait:
            self.tally.left(len(self.elsewhere))
            return False
        return bool(self.elsewhere)

    def _take(self) -> None:
        """Leases on further clips, as many as workers can soon use."""
        if self.stopped is not None:
            return
        if self.elsewhere and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + min(self.options.lease_s / 4, 5.0)
            self.waiting.extend(self.elsewhere.values())
            self.elsewhere.clear()
        while self.waiting and len(self.held) < self._most_held:
            clip = self.waiting.popleft()
            record = self.ledger.read(clip.name)
            if record is not None and self.is_settled(clip, record):
                self.tally.elsewhere(clip, record)
                continue
            lease = self.leases.take(clip.name)
            if lease is None:
                self.elsewhere[clip.name] = clip
                continue
            self._require_same_batch(lease)
            self._begin(clip, lease)

    def _require_same_batch(self, lease: Lease) -> None:
        if identity_hash(read_identity(self.output)) != self.mark:
            self.leases.release(lease)
            raise OutputError(
                f"the batch in {self.output} was meanwhile let go on with other settings (--overwrite); this one ends"
            )

    def _begin(self, clip: Clip, lease: Lease) -> None:
        """A clip whose lease was just taken: settled meanwhile, given up, or to be fetched."""
        record = self.ledger.read(clip.name)
        tries: list[dict[str, Any]] = []
        if record is not None and self._is_of(clip, record):
            if self.is_settled(clip, record):
                self.leases.release(lease)
                self.tally.elsewhere(clip, record)
                return
            tries = list(record["tries"]) if record["state"] == "pending" else []
        held = Held(clip, lease, tries, Future())
        self.held[clip.name] = held
        if lease.abandoned_by is not None:
            who = f"{lease.abandoned_by.get('coordinator', '?')} on {lease.abandoned_by.get('host', '?')}"
            note = {"exit_code": 1, "reason": f"the coordinator {who} stopped without a word"}
            self._tried(held, note)
            if clip.name not in self.held:
                return
        if needs_fetching(clip):
            held.fetching = self._fetchers.submit(fetch, clip, self.work / clip.name)
        else:
            held.fetching.set_result(Path(clip.location))

    def _give_out(self) -> None:
        idle = self.engine.idle()
        for held in list(self.held.values()):
            if held.task is not None or not held.fetching.done():
                continue
            error = held.fetching.exception()
            if isinstance(error, DiskFull):
                self._stop(held, error)
            elif error is not None:
                code, reason = explain(error)
                state = "tried" if not isinstance(error, Geo4DError) else "failed"
                self._ended(held, {"state": state, "exit_code": code, "reason": reason})
            elif idle:
                output = str(self.output / CLIPS / held.clip.name)
                held.task = Task(held.clip.name, str(held.fetching.result()), output, self.keep_going)
                self.engine.submit(idle.pop(0), held.task)

    def _handle(self, event: Event) -> None:
        held = self.held.get(event.task.name) if event.task is not None else None
        if held is None or held.lease.lost or held.task is not event.task:
            return  # of a worker that was ended because its clip was lost
        if event.kind == "died":
            self._tried(held, {"exit_code": event.exit_code, "reason": event.reason})
        elif event.note is not None:
            self._ended(held, event.note)

    def _ended(self, held: Held, note: Mapping[str, Any]) -> None:
        """Record what became of a clip."""
        state = note["state"]
        if state == "busy":  # a run of this clip outside of this batch, or of one who lost its lease
            self._give_back(held)
            self.elsewhere[held.clip.name] = held.clip
        elif state == "no room":
            self._stop(held, DiskFull(note["reason"]))
        elif state == "tried":
            self._tried(held, note)
        else:
            self._record(held, {**note, "state": "failed" if state == "failed" else "done"})
            self._give_back(held)
            if state == "unchanged":
                self.tally.skip(note)
            else:
                self.tally.end(held.clip, note)

    def _tried(self, held: Held, note: Mapping[str, Any]) -> None:
        """A death or a failure that may not come again: the clip is given back, or given up after so many."""
        held.tries.append({"exit_code": note["exit_code"], "reason": note["reason"]})
        count, most = len(held.tries), self.options.clip_tries
        if count >= most:
            reason = f"given up after {count} tries: {note['reason']}"
            self._record(held, {**note, "state": "quarantined", "reason": reason})
            self._give_back(held)
            self.tally.end(held.clip, {**note, "reason": reason})
            return
        self._record(held, {**note, "state": "pending"})
        self.tally.again(held.clip, note["reason"], count, most)
        if held.task is not None or held.fetching.done():
            self._give_back(held)
            self.waiting.append(held.clip)

    def _record(self, held: Held, note: Mapping[str, Any]) -> None:
        clip = held.clip
        about = {
            "source": clip.source,
            "stamp": clip.stamp,
            "identity": self.mark,
            "tries": held.tries,
            "ended": self.leases.presence.now(),
            "coordinator": self.leases.presence.about,
        }
        self.ledger.write(clip.name, {**note, **about})

    def _give_back(self, held: Held) -> None:
        self.held.pop(held.clip.name, None)
        self._remove_fetched(held)
        self.leases.release(held.lease)

    def _remove_fetched(self, held: Held) -> None:
        if needs_fetching(held.clip) and not self.options.keep_sources:
            shutil.rmtree(self.work / held.clip.name, ignore_errors=True)

    def _stop(self, held: Held, error: Geo4DError) -> None:
        """No room on a disk: no fault of the clip. Nothing new is begun here; other machines may go on."""
        if self.stopped is None:
            self.stopped = type(error)(f"{held.clip.name}: {error}; free some space and start again")
        self._give_back(held)

    def _drop_lost(self) -> None:
        """Clips that others have taken over while this coordinator stood still belong to them."""
        for held in [held for held in self.held.values() if held.lease.lost]:
            self.engine.kill(held.clip.name)
            self._give_back(held)
            self.elsewhere[held.clip.name] = held.clip
