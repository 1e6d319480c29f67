"""One coordinator of a batch: takes clips that nobody has, gives them to workers, and notes what became of them."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo4d.batch.clips import Clip
from geo4d.batch.engine import Engine, Event
from geo4d.batch.leases import Lease, Leases
from geo4d.batch.ledger import CLIPS
from geo4d.batch.records import Records
from geo4d.batch.settings import BatchSettings
from geo4d.batch.stores import Fetcher, needs_fetching
from geo4d.batch.summary import Summary
from geo4d.batch.tally import Tally
from geo4d.batch.task import Task
from geo4d.errors import DiskFull, Geo4DError, explain

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
        records: of the batch.
        clips: that this coordinator may take.
        engine: with at least one worker that is ready.
        say: gets lines for people.
        keep_going: a doubtful result is no failure.
        workers: that the engine has.
    """

    def __init__(
        self,
        records: Records,
        leases: Leases,
        engine: Engine,
        fetcher: Fetcher,
        clips: Sequence[Clip],
        options: BatchSettings,
        say: Callable[[str], None],
        *,
        keep_going: bool = False,
        workers: int = 1,
    ) -> None:
        self.records, self.leases, self.engine, self.fetcher = records, leases, engine, fetcher
        self.options, self.keep_going, self.workers = options, keep_going, workers
        self.output = records.output
        self.summary = Summary(self.output, options.table)
        self.tally = Tally(len(clips), say)
        self.held: dict[str, Held] = {}
        self.elsewhere: dict[str, Clip] = {}
        self.waiting: deque[Clip] = deque()
        self.stopped: Geo4DError | None = None
        self._next_look = 0.0
        self._most_held = options.workers * (2 if any(map(needs_fetching, clips)) else 1)
        for clip in clips:
            record = self.records.settled(clip)
            if record is not None:
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
        for number in range(self.workers, min(self.options.workers, len(self.waiting))):
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
                self.summary.update(self.records.ledger.scan)
        finally:
            self.fetcher.close()
            self.summary.update(self.records.ledger.scan, now=True)
        if self.stopped is not None:
            raise self.stopped

    def _must_look(self) -> bool:
        """Whether something may change that no worker tells."""
        return bool(self.elsewhere) or any(not held.fetching.done() for held in self.held.values())

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
            record = self.records.settled(clip)
            if record is not None:
                self.tally.elsewhere(clip, record)
                continue
            lease = self.leases.take(clip.name)
            if lease is None:
                self.elsewhere[clip.name] = clip
                continue
            self.records.require_same_batch()
            self._begin(clip, lease)

    def _begin(self, clip: Clip, lease: Lease) -> None:
        """A clip whose lease was just taken: settled meanwhile, given up, or to be fetched."""
        record = self.records.settled(clip)
        if record is not None:
            self.leases.release(lease)
            self.tally.elsewhere(clip, record)
            return
        held = Held(clip, lease, self.records.tries(clip), Future())
        self.held[clip.name] = held
        if lease.abandoned_by is not None:
            who = f"{lease.abandoned_by.get('coordinator', '?')} on {lease.abandoned_by.get('host', '?')}"
            note = {"exit_code": 1, "reason": f"the coordinator {who} stopped without a word"}
            self._tried(held, note)
            if clip.name not in self.held:
                return
        held.fetching = self.fetcher.begin(clip)

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
                held.task = Task(
                    held.clip.name,
                    str(held.fetching.result()),
                    output,
                    self.keep_going,
                    self.records.place_in_store(held.clip),
                    self.records.owner,
                )
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
            self.records.write(
                held.clip, held.tries, {**note, "state": "failed" if state == "failed" else "done"}
            )
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
            self.records.write(held.clip, held.tries, {**note, "state": "quarantined", "reason": reason})
            self._give_back(held)
            self.tally.end(held.clip, {**note, "reason": reason})
            return
        self.records.write(held.clip, held.tries, {**note, "state": "pending"})
        self.tally.again(held.clip, note["reason"], count, most)
        if held.task is not None or held.fetching.done():
            self._give_back(held)
            self.waiting.append(held.clip)

    def _give_back(self, held: Held) -> None:
        self.held.pop(held.clip.name, None)
        self.fetcher.remove(held.clip)
        self.leases.release(held.lease)

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
