"""Worker processes: real ones, and real signals."""

import hashlib
import os
import signal
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import geo4d
from geo4d.batch.engine import STALLED
from geo4d.batch.jobs import CLIPS_JOB
from geo4d.batch.ledger import BATCH, CLIPS, LEDGER, Ledger
from geo4d.batch.local import LocalEngine, Worker, _environment, find_gpus, share_cpus, share_threads
from geo4d.errors import ResourceError
from tests.batch.test_one import SETTINGS, arrays
from tests.support import batch_stub as batches
from tests.support.toy_job import TOY_JOB, ToyTask


def windows(trace: Path) -> list[tuple[int, list[str]]]:
    """(process, [number of the window, its frames, mean colour]) of every window that was begun."""
    return [(int(f.name), line.split()) for f in trace.iterdir() for line in f.read_text().splitlines()]


def await_true(condition: Callable[[], object], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_costs_its_window_and_a_poisoned_clip_is_named(tmp_path) -> None:
    trace, out = tmp_path / "trace", tmp_path / "out"
    trace.mkdir()
    long = batches.write_clip(tmp_path / "in/long.mp4", 14)
    batches.write_clip(tmp_path / "in/poison.mp4", 5)
    short = batches.write_clip(tmp_path / "short.mp4", 4)
    with tarfile.open(tmp_path / "in/shard.tar", "w") as archive:
        archive.add(short, "000.mp4")
    process = batches.start(
        "batch", tmp_path / "in", "-o", out, *batches.SMALL, "--tries", 0, "--workers", 2,
        trace=trace, sleep=2.0, poison=5, signal="SIGSEGV",
    )  # fmt: skip

    def second_window() -> list[int]:
        return [pid for pid, line in windows(trace) if line[:2] == ["1", "8"]]

    def first_is_kept() -> list[int]:  # written beside the second one's prediction
        kept = list(out.rglob("window_000000_try0.zarr.zip"))
        return second_window() if any("long" in str(path) for path in kept) else []

    await_true(first_is_kept, "the second window of the long clip was never begun with the first one kept")
    os.kill(first_is_kept()[0], signal.SIGKILL)
    said, error = process.communicate(timeout=300)
    assert process.returncode == 11, error
    assert "1 of 3 clips failed" in error
    records = {record["source"]: record for record in Ledger(out / BATCH / LEDGER).scan().values()}
    assert records[str(long)]["state"] == "done"
    assert "SIGKILL" in records[str(long)]["tries"][0]["reason"]
    assert "predict (" in records[str(long)]["tries"][0]["reason"]
    packed = records[f"{tmp_path / 'in/shard.tar'}|000.mp4"]
    assert packed["state"] == "done"
    assert packed["source_sha256"] == hashlib.sha256(short.read_bytes()).hexdigest()
    assert not any((out / BATCH / "work").rglob("*.mp4"))
    poison = records[str(tmp_path / "in/poison.mp4")]
    assert poison["state"] == "quarantined"
    assert poison["exit_code"] == 128 + signal.SIGSEGV
    assert [t["exit_code"] for t in poison["tries"]] == [139] * 3
    assert "poison" in said
    assert "given up after 3 tries" in (out / "summary.md").read_text()
    begun = Counter((line[0], line[1]) for _, line in windows(trace))
    of_long = [begun.pop((str(number), "8")) for number in range(3)]
    assert of_long in ([1, 2, 1], [1, 1, 2]), "the window it was killed in is predicted again, and no other"
    assert begun == {("0", "5"): 3, ("0", "4"): 1}
    geo4d.reconstruct(long, tmp_path / "single", **SETTINGS)
    name = next(path.name for path in (out / CLIPS).iterdir() if "long" in path.name)
    assert arrays(tmp_path / "single") == arrays(out / CLIPS / name)


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_batch_with_its_own_code(tmp_path) -> None:
    batches.write_clip(tmp_path / "in/a.mp4", 4)
    code, _, error = batches.run(
        "batch", tmp_path / "in", "-o", tmp_path / "out", "--model", "no-such", "--table", "md"
    )
    assert code == 2
    assert "expected one of" in error
    assert not (tmp_path / "out").exists()


def test_a_worker_that_stands_still_is_ended_and_one_that_gets_on_is_not() -> None:
    with LocalEngine(1, TOY_JOB, {}, stall_s=2.0) as engine:
        engine.start(0)
        assert next_event(engine).kind == "ready"
        engine.submit(0, ToyTask("slow", "steps", 6))  # longer than the limit in all, never in one step
        assert next_event(engine).note == {"state": "done", "name": "slow"}
        engine.submit(0, ToyTask("stuck", "hang"))
        event = next_event(engine)
        assert (event.kind, event.task.name, event.exit_code) == ("died", "stuck", STALLED)
        assert "no progress for 2 s during hanging (1 of 2)" in event.reason
        assert next_event(engine).kind == "ready"  # another worker in its place


def next_event(engine):
    while True:
        for event in engine.wait(1):
            return event


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [(-9, 137, "SIGKILL (killed from outside"), (-11, 139, "SIGSEGV"), (3, 3, "exit code 3")],
)
def test_how_a_worker_died(code: int, exit_code: int, said: str) -> None:
    worker = dead_worker(code)
    worker.stage = "align (1 of 2)"
    assert worker.death()[0] == exit_code
    assert said in worker.death()[1]
    assert worker.death()[1].endswith("during align (1 of 2)")


def dead_worker(code: int, *, ready: bool = False) -> Worker:
    worker = object.__new__(Worker)
    worker.number, worker.task, worker.stage, worker.ready = 0, None, "", ready
    worker.ended_for_stalling = False
    worker.process = SimpleNamespace(exitcode=code, join=lambda *timeout: None)
    worker.pipe = SimpleNamespace(close=lambda: None)
    return worker


def test_workers_that_die_while_they_start_end_the_batch(monkeypatch) -> None:
    started = []
    engine = LocalEngine(1, CLIPS_JOB, {})
    monkeypatch.setattr(engine, "start", started.append)
    assert engine._replace(dead_worker(-9, ready=True)).exit_code == 137
    assert engine._replace(dead_worker(-9)).kind == "died"
    with pytest.raises(ResourceError, match=r"SIGKILL.*fewer --workers"):
        engine._replace(dead_worker(-9))
    assert started == [0, 0]


@pytest.mark.parametrize(
    ("asked", "workers", "threads"), [(None, 1, 8), (None, 3, 2), (None, 99, 1), ("2", 2, 2), ("2", 8, 1)]
)
def test_threads_are_divided(monkeypatch, asked: str | None, workers: int, threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert share_threads(workers) == threads


@pytest.mark.parametrize(
    ("workers", "threads", "cpus"),
    [
        (2, 2, [(0, 1), (2, 5)]),
        (4, 1, [(0,), (1,), (2,), (5,)]),
        (1, 4, []),
        (3, 1, []),
        (8, 1, []),
        (2, 1, []),
    ],
)
def test_workers_that_fill_the_machine_keep_to_their_cpus(monkeypatch, workers, threads, cpus) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 0, 2, 1}, raising=False)
    assert share_cpus(workers, threads) == cpus


def test_gpus_are_those_that_are_visible(monkeypatch) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("geo4d.batch.local._has_driver", lambda: False)
    assert find_gpus(None) == []
    monkeypatch.setattr("geo4d.batch.local._has_driver", lambda: True)
    assert find_gpus(None) == ["0", "1", "2"]
    assert find_gpus("cpu") == find_gpus("cuda:1") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-7f")
    assert find_gpus("cuda") == ["4", "GPU-7f"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_gpus(None) == []


def test_workers_get_gpus_in_turn(monkeypatch) -> None:
    given = []
    monkeypatch.setattr("geo4d.batch.local.find_gpus", lambda device: ["0", "1"])
    monkeypatch.setattr(
        "geo4d.batch.local.Worker",
        lambda number, job, settings, threads, gpu, cpus: given.append((number, gpu)),
    )
    engine = LocalEngine(4, CLIPS_JOB, {})
    for number in range(4):
        engine.start(number)
    assert given == [(0, "0"), (1, "1"), (2, "0"), (3, "1")]


def test_the_environment_of_the_coordinator_stays(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with _environment({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
