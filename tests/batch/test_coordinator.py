"""What a coordinator does with what happens to its workers, and what two of them do to each other."""

import os
import threading
import time
from collections import defaultdict, deque
from pathlib import Path

import pytest

from geo4d.batch.clips import Clip
from geo4d.batch.coordinator import Coordinator
from geo4d.batch.engine import Event
from geo4d.batch.leases import Leases, Presence
from geo4d.batch.ledger import BATCH, CLIPS, LEDGER, Ledger, claim
from geo4d.batch.records import Records
from geo4d.batch.settings import BatchSettings
from geo4d.batch.stores import Fetcher
from geo4d.batch.task import Task
from geo4d.errors import DiskFull, OutputError

DONE = {"state": "done", "exit_code": 0, "reason": "", "frames": 4, "verdict": "usable", "seconds": 0.1}
BAD = {"state": "failed", "exit_code": 3, "reason": "no video"}
TRIED = {"state": "tried", "exit_code": 7, "reason": "out of memory"}
FULL = {"state": "no room", "exit_code": 4, "reason": "the disk is full"}
BUSY = {"state": "busy", "exit_code": 4, "reason": "another run is writing it"}
DEATH, STILL = "death", "still at work"
IDENTITY = {"versions": {"geo4d": "0.1.0"}}


class ScriptedEngine:
    """Workers whose tasks end as a script says, in turn for each clip; without one they are done."""

    def __init__(self, output: Path, script=None, on_task=lambda name: None) -> None:
        self.output, self.on_task = output, on_task
        self.script = defaultdict(deque, {name: deque(notes) for name, notes in (script or {}).items()})
        self.tasks: dict[int, object] = {0: None}
        self.given: list[str] = []
        self.killed: list[str] = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    def stop(self):
        self.tasks.clear()

    def start(self, number):
        self.tasks[number] = None

    def idle(self):
        return [number for number, task in self.tasks.items() if task is None]

    def submit(self, number, task):
        self.tasks[number] = task
        self.given.append(task.name)

    def kill(self, name):
        self.killed += [task.name for task in self.tasks.values() if task is not None and task.name == name]
        self.script[name].appendleft(DEATH)

    def wait(self, timeout_s):
        events = []
        for number, task in list(self.tasks.items()):
            if task is None:
                continue
            self.on_task(task.name)
            steps = self.script[task.name]
            note = steps.popleft() if steps else DONE
            if note == STILL:
                continue
            self.tasks[number] = None
            if note == DEATH:
                events.append(Event("died", number, task, exit_code=137, reason="SIGKILL"))
                continue
            if note["state"] == "done":
                folder = self.output / CLIPS / task.name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "manifest.json").write_text("{}")
            events.append(Event("ended", number, task, note=note))
        if not events:
            time.sleep(0.01)
        return events


class Room:
    """One output; makes coordinators that work on it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.lines: list[str] = []

    def run(
        self, *names, script=None, stamp=(1,), stale_s=60.0, identity=None, on_task=None, kinds=(), **options
    ):
        """(coordinator, its engine) after a run over clips of these names."""
        mark = claim(self.output, identity or IDENTITY, overwrite=identity is not None)
        engine = ScriptedEngine(self.output, script, on_task or (lambda name: None))
        clips = [Clip(name, "path", f"/{name}.mp4", stamp=stamp) for name in names]
        clips += list(kinds)
        folder = self.output / BATCH
        with (
            Presence(folder / "coordinators") as presence,
            Leases(folder / "leases", presence, stale_s) as leases,
        ):
            settings = BatchSettings(table="md", lease_s=stale_s, **options)
            records = Records(self.output, mark, settings, Ledger(folder / LEDGER), presence)
            fetcher = Fetcher(self.output / "work", 1, keep=settings.keep_sources)
            self.coordinator = Coordinator(
                records, leases, engine, fetcher, clips, settings, self.lines.append
            )
            self.coordinator.run()
        return self.coordinator, engine

    def record(self, name):
        return Ledger(self.output / BATCH / LEDGER).read(name)


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path / "out")


def test_clips_are_done_once_and_then_skipped(room) -> None:
    first, engine = room.run("a", "b", "c", workers=2)
    assert sorted(engine.given) == ["a", "b", "c"]
    assert first.tally.codes == {0: 3}
    assert not any((room.output / BATCH / "leases").iterdir())
    again, engine = room.run("a", "b", "c", "d")
    assert engine.given == ["d"]
    assert again.tally.skipped == 3
    assert "3 are complete and unchanged, 1 to do" in " ".join(room.lines)


@pytest.mark.parametrize("change", ["source", "result", "identity", "verify"])
def test_what_changed_is_looked_at_again(room, change: str) -> None:
    room.run("a")
    if change == "result":
        (room.output / CLIPS / "a" / "manifest.json").unlink()
    _, engine = room.run(
        "a",
        stamp=(2,) if change == "source" else (1,),
        identity={**IDENTITY, "device": "cuda"} if change == "identity" else None,
        verify=change == "verify",
    )
    assert engine.given == ["a"]


def test_bad_input_is_not_tried_again_and_stays_named(room) -> None:
    first, engine = room.run("a", "bad", script={"bad": [BAD, DONE]})
    assert sorted(engine.given) == ["a", "bad"]
    assert first.tally.codes == {0: 1, 3: 1}
    again, engine = room.run("a", "bad")
    assert engine.given == []
    assert again.tally.codes == {0: 1, 3: 1}
    _, engine = room.run("a", "bad", retry_failed=True)
    assert engine.given == ["bad"]
    assert room.record("bad")["state"] == "done"


def test_deaths_and_failures_are_tried_again(room) -> None:
    coordinator, engine = room.run("a", "b", script={"a": [DEATH, TRIED, DONE]})
    assert engine.given.count("a") == 3
    assert coordinator.tally.codes == {0: 2}
    assert coordinator.tally.retries == 2
    assert [t["exit_code"] for t in room.record("a")["tries"]] == [137, 7]


def test_a_poisoned_clip_is_quarantined_and_named(room) -> None:
    coordinator, engine = room.run("a", "poison", script={"poison": [DEATH] * 9}, clip_tries=3)
    assert engine.given.count("poison") == 3
    record = room.record("poison")
    assert record["state"] == "quarantined"
    assert record["reason"] == "given up after 3 tries: SIGKILL"
    assert coordinator.tally.codes == {0: 1, 137: 1}
    assert "given up after 3 tries" in (room.output / "summary.md").read_text()
    _, engine = room.run("a", "poison")
    assert engine.given == []
    _, engine = room.run("a", "poison", stamp=(2,))  # another source: its tries begin anew
    assert sorted(engine.given) == ["a", "poison"]


def test_tries_are_remembered_over_coordinators(room) -> None:
    with pytest.raises(KeyboardInterrupt):
        room.run("a", script={"a": [DEATH]}, on_task=interrupt_after(1))
    assert room.record("a")["state"] == "pending"
    _, engine = room.run("a", script={"a": [DEATH] * 9}, clip_tries=3)
    assert engine.given.count("a") == 2


def interrupt_after(count):
    seen = []

    def on_task(name):
        seen.append(name)
        if len(seen) > count:
            raise KeyboardInterrupt

    return on_task


def test_an_interruption_gives_clips_back_and_writes_the_table(room) -> None:
    with pytest.raises(KeyboardInterrupt):
        room.run("a", "b", on_task=interrupt_after(1))
    assert not any((room.output / BATCH / "leases").iterdir())
    assert "# 1 clips" in (room.output / "summary.md").read_text()


def test_a_full_disk_stops_this_coordinator_and_blames_no_clip(room) -> None:
    with pytest.raises(DiskFull, match="b: the disk is full"):
        room.run("a", "b", "c", script={"b": [FULL]})
    assert room.record("b") is None
    _, engine = room.run("a", "b", "c")
    assert engine.given == ["b", "c"]


def test_a_clip_that_another_run_writes_is_waited_for(room) -> None:
    coordinator, engine = room.run("a", script={"a": [BUSY, DONE]}, stale_s=1.0)
    assert engine.given == ["a", "a"]
    assert coordinator.tally.retries == 0


def test_two_coordinators_do_no_clip_twice(room) -> None:
    claim(room.output, IDENTITY, overwrite=False)
    names = [f"clip{i}" for i in range(30)]
    runs, errors = [], []

    def go():
        try:
            other = Room(room.output)
            runs.append(other.run(*names, workers=2, on_task=lambda name: time.sleep(0.01)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    given = [name for _, engine in runs for name in engine.given]
    assert sorted(given) == sorted(names)
    assert sum(len(engine.given) > 0 for _, engine in runs) > 1
    assert all(coordinator.tally.codes == {0: 30} for coordinator, _ in runs)


def abandon(room, name: str, stale_s: float = 60.0) -> None:
    """A lease of a coordinator that stopped long ago."""
    claim(room.output, IDENTITY, overwrite=False)
    lease = room.output / BATCH / "leases" / f"{name}.0"
    lease.write_text('{"coordinator": "feed", "host": "gone"}')
    os.utime(lease, (0, 0))


def test_clips_of_a_coordinator_that_stopped_are_taken_over_and_count_as_tried(room) -> None:
    abandon(room, "a")
    _, engine = room.run("a", "b")
    assert sorted(engine.given) == ["a", "b"]
    assert room.record("a")["tries"][0]["reason"] == "the coordinator feed on gone stopped without a word"
    abandon(room, "c")
    _, engine = room.run("c", clip_tries=1)
    assert engine.given == []
    assert room.record("c")["state"] == "quarantined"


def test_without_wait_clips_of_others_are_left_to_them(room) -> None:
    claim(room.output, IDENTITY, overwrite=False)
    with (
        Presence(room.output / BATCH / "coordinators") as presence,
        Leases(room.output / BATCH / "leases", presence, 60.0) as theirs,
    ):
        assert theirs.take("a") is not None
        coordinator, engine = room.run("a", "b", wait=False)
    assert engine.given == ["b"]
    assert coordinator.tally.left_to_others == 1


def test_a_clip_that_was_lost_is_left_to_its_new_holder(room) -> None:
    """The machine stood still; another coordinator took the clip over meanwhile and does it."""

    def lose(name):
        for lease in (room.output / BATCH / "leases").glob("a.*"):
            lease.rename(lease.with_name("a.1"))
            room.coordinator.leases.beat()
            lease.with_name("a.1").unlink()

    coordinator, engine = room.run("a", script={"a": [STILL]}, on_task=once(lose), stale_s=1.0)
    assert engine.killed == ["a"]
    assert engine.given == ["a", "a"]  # free again: nobody had done it
    assert coordinator.tally.codes == {0: 1}


def test_the_end_of_a_worker_that_had_the_clip_before_is_not_held_against_it(room) -> None:
    late = Event("died", 7, Task("a", "/a.mp4", "/out"), exit_code=137, reason="SIGKILL")
    _, engine = room.run("a", on_task=once(lambda name: room.coordinator._handle(late)))
    assert engine.given == ["a"]
    assert room.record("a")["tries"] == []


def once(function):
    calls = []

    def on_task(name):
        calls.append(name)
        if len(calls) == 1:
            function(name)

    return on_task


def test_a_batch_that_was_let_go_on_otherwise_ends_the_old_coordinators(room) -> None:
    def change(name):
        claim(room.output, {**IDENTITY, "device": "cuda"}, overwrite=True)

    with pytest.raises(OutputError, match="other settings"):
        room.run("a", "b", on_task=once(change))
    assert not any((room.output / BATCH / "leases").iterdir())


def test_what_cannot_be_fetched_is_tried_again_then_named(room, tmp_path) -> None:
    clip = Clip("t", "tar", str(tmp_path / "s.tar"), "a.mp4", 0, 3, (1,))
    coordinator, engine = room.run(kinds=[clip])
    assert engine.given == []
    assert coordinator.tally.codes == {3: 1}
    assert "not there any more" in room.record("t")["reason"]
    (tmp_path / "s.tar").write_bytes(b"abc")
    _, engine = room.run(kinds=[clip], retry_failed=True)
    assert engine.given == ["t"]
    assert not (room.output / "work" / "t").exists()
    _, engine = room.run(kinds=[clip], verify=True, keep_sources=True)
    assert [file.read_bytes() for file in (room.output / "work" / "t").iterdir()] == [b"abc"]
