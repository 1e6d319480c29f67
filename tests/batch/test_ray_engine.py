"""Actors of a real Ray on this machine: what they are told, how they die, and what a whole batch makes of them."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter

import pytest

import geo4d
from geo4d.batch.engine import STALLED, Engine
from geo4d.batch.engines import make_engine
from geo4d.batch.ledger import BATCH, CLIPS, LEDGER, Ledger
from geo4d.batch.ray_engine import require_answer
from geo4d.batch.settings import WorkerSettings
from geo4d.errors import BatchError, CheckpointError, ResourceError
from tests.batch.test_local import await_true, next_event, windows
from tests.batch.test_one import SETTINGS, arrays
from tests.support import batch_stub as batches
from tests.support.toy_job import TOY_JOB, ToyTask

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A Ray with room for one worker."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
    )
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)


def engine(settings=None, stall_s=None, **how) -> Engine:
    return make_engine(WorkerSettings(engine="ray", **how), TOY_JOB, settings or {}, stall_s=stall_s)


@pytest.mark.slow
def test_an_actor_does_tasks_dies_by_a_kill_and_by_standing_still_and_is_replaced() -> None:
    with engine({"a": 1}, stall_s=3.0) as workers:
        assert isinstance(workers, Engine)
        workers.start(0)
        ready = next_event(workers)
        assert ready.kind == "ready"
        assert ready.note["settings"] == {"a": 1}
        assert ready.note["threads"] == {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        assert ready.note["process"] != os.getpid()
        for name in ("first", "second"):
            workers.submit(0, ToyTask(name))
            assert workers.idle() == []
            assert next_event(workers).note == {"state": "done", "name": name}
        workers.submit(0, ToyTask("poison", "die", 2))
        died = next_event(workers)
        assert (died.kind, died.task.name, died.exit_code) == ("died", "poison", 1)
        assert f"process {ready.note['process']} on" in died.reason
        assert "during dying (1 of 2)" in died.reason
        assert next_event(workers).note["process"] != ready.note["process"]
        workers.submit(0, ToyTask("stuck", "hang"))
        died = next_event(workers)
        assert (died.kind, died.task.name, died.exit_code) == ("died", "stuck", STALLED)
        assert "no progress for 3 s during hanging (1 of 2)" in died.reason


def test_an_idle_actor_that_dies_costs_no_clip_a_try() -> None:
    with engine() as workers:
        workers.start(0)
        os.kill(next_event(workers).note["process"], signal.SIGKILL)
        died = next_event(workers)
        assert (died.kind, died.task) == ("died", None)
        assert next_event(workers).kind == "ready"
        workers.submit(0, ToyTask("lost", "hang"))
        workers.kill("lost")
        assert next_event(workers).task.name == "lost"


def test_another_version_on_a_node_and_weights_that_are_not_there_are_refused(monkeypatch) -> None:
    with engine({"refuse": True}) as workers:
        workers.start(0)
        with pytest.raises(BatchError, match="no such weights") as error:
            next_event(workers)
    assert error.value.exit_code == CheckpointError.exit_code
    monkeypatch.setattr("geo4d.batch.ray_engine.versions", lambda: {"geo4d": "0.0.9", "torch": "1.0"})
    with engine() as workers:
        workers.start(0)
        with pytest.raises(BatchError, match=r"geo4d 0\.1\.0 there, 0\.0\.9 here; torch .*install the same"):
            next_event(workers)


def test_what_a_node_does_not_see_is_named(tmp_path, monkeypatch) -> None:
    with engine() as workers:
        workers.start(0)
        next_event(workers)
        monkeypatch.setattr(
            "geo4d.batch.ray_engine.Path.exists", lambda path: True
        )  # as on this machine alone
        workers.submit(0, ToyTask("a", path=str(tmp_path / "far.mp4")))
        with pytest.raises(BatchError, match=r"does not see .*far\.mp4.*share"):
            next_event(workers)


def test_workers_that_die_while_they_start_end_the_batch() -> None:
    with engine({"die": True}) as workers:
        workers.start(0)
        assert next_event(workers).kind == "died"
        with pytest.raises(ResourceError, match="before they have loaded"):
            next_event(workers)


def test_room_that_is_not_there_is_said_and_the_handler_of_signals_stays(caplog) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with engine(worker_cpus=99):
        assert "a worker needs 99 CPUs" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_batch_on_ray_with_a_killed_actor_and_a_poisoned_clip(tmp_path, monkeypatch) -> None:
    """A Ray of its own, begun and ended by the command."""
    trace, out = tmp_path / "trace", tmp_path / "out"
    trace.mkdir()
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "tests.support.ray_stub.with_stub")
    long = batches.write_clip(tmp_path / "in/long.mp4", 14)
    batches.write_clip(tmp_path / "in/poison.mp4", 5)
    batches.write_clip(tmp_path / "in/short.mp4", 4)
    process = batches.start(
        "batch", tmp_path / "in", "-o", out, *batches.SMALL, "--tries", 0, "--workers", 2, "--engine", "ray",
        trace=trace, sleep=1.5, poison=5, signal="SIGSEGV",
    )  # fmt: skip

    def second_window() -> list[int]:
        return [pid for pid, line in windows(trace) if line[:2] == ["1", "8"]]

    def first_is_kept() -> list[int]:  # written beside the second one's prediction
        kept = list(out.rglob("window_000000_try0.zarr.zip"))
        return second_window() if any("long" in str(path) for path in kept) else []

    await_true(first_is_kept, "the second window of the long clip was never begun with the first one kept")
    os.kill(first_is_kept()[0], signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 11, error
    assert "1 of 3 clips failed" in error
    records = {record["source"]: record for record in Ledger(out / BATCH / LEDGER).scan().values()}
    assert records[str(long)]["state"] == "done"
    assert "its Ray actor" in records[str(long)]["tries"][0]["reason"]
    assert records[str(tmp_path / "in/poison.mp4")]["state"] == "quarantined"
    assert "given up after 3 tries" in (out / "summary.md").read_text()
    begun = Counter((line[0], line[1]) for _, line in windows(trace))
    assert begun == {("0", "8"): 1, ("1", "8"): 2, ("2", "8"): 1, ("0", "5"): 3, ("0", "4"): 1}
    assert os.getpid() not in {pid for pid, _ in windows(trace)}
    geo4d.reconstruct(long, tmp_path / "single", **SETTINGS)
    name = next(path.name for path in (out / CLIPS).iterdir() if "long" in path.name)
    assert arrays(tmp_path / "single") == arrays(out / CLIPS / name)


@pytest.mark.slow
def test_a_ray_of_its_own_is_begun_without_niceness_and_ended(tmp_path) -> None:
    code = (
        "import os\n"
        "from geo4d.batch.engines import make_engine\n"
        "from geo4d.batch.settings import WorkerSettings\n"
        "from tests.batch.test_local import next_event\n"
        "from tests.support.toy_job import TOY_JOB\n"
        "import ray\n"
        "with make_engine(WorkerSettings(engine='ray'), TOY_JOB, {}) as engine:\n"
        "    engine.start(0)\n"
        "    assert next_event(engine).note['niceness'] == os.nice(0)\n"
        "assert not ray.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200, cwd=batches.ROOT)


@pytest.mark.slow
def test_a_signal_ends_a_batch_on_ray_with_its_code_and_counts_no_try(tmp_path, monkeypatch) -> None:
    trace, out = tmp_path / "trace", tmp_path / "out"
    trace.mkdir()
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "tests.support.ray_stub.with_stub")
    batches.write_clip(tmp_path / "in/a.mp4", 4)
    process = batches.start(
        "batch", tmp_path / "in", "-o", out, *batches.SMALL, "--engine", "ray", trace=trace, sleep=600
    )
    await_true(lambda: windows(trace), "no window was begun")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert Ledger(out / BATCH / LEDGER).scan() == {}


def test_an_address_where_nobody_listens_is_said_and_not_waited_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening
        port = taken.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            with pytest.raises(BatchError, match=f"expected a Ray cluster at {address}, nobody answers"):
                require_answer(address)
    for address in ("auto", "local", "/tmp/ray/ray_current_cluster"):
        require_answer(address)
    with socket.create_server(("127.0.0.1", 0)) as open_port:
        require_answer(f"127.0.0.1:{open_port.getsockname()[1]}")
