"""Whole batches: two on one output, kills of coordinators, signals, and what is refused before any work."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from geo4d.batch.leases import Presence
from geo4d.batch.ledger import BATCH, CLIPS, IDENTITY, LEASES, LEDGER, Ledger
from geo4d.batch.run import _prefix, _tidy, run_batch
from geo4d.batch.settings import BatchSettings
from geo4d.errors import InputError, OutputError
from tests.batch.test_local import await_true, windows
from tests.support import batch_stub as batches

FAST = (*batches.SMALL, "--tries", 0)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_two_batches_on_one_output_one_of_them_killed_and_then_another_version(tmp_path) -> None:
    out, trace = tmp_path / "out", tmp_path / "trace"
    trace.mkdir()
    for i in range(5):
        batches.write_clip(tmp_path / f"in/{i}.mp4", 14, seed=i)
    words = ("batch", tmp_path / "in", "-o", out, *FAST)
    first = batches.start(*words, trace=trace, sleep=1.0)
    await_true(lambda: windows(trace), "the first batch began no window")
    killed = {process for process, _ in windows(trace)}
    second = batches.start(*words, trace=trace, sleep=1.0)
    await_true(lambda: {p for p, _ in windows(trace)} - killed, "the second batch began no window")
    in_work = list((out / BATCH / LEASES).iterdir())
    assert len(in_work) == 2  # a clip each
    first.kill()
    first.communicate(timeout=60)
    await_true(lambda: not any(map(is_alive, killed)), "workers outlive their coordinator", 60)
    _, error = second.communicate(timeout=300)
    assert second.returncode == 0, error
    records = Ledger(out / BATCH / LEDGER).scan()
    assert [record["state"] for record in records.values()] == ["done"] * 5
    taken_over = [record for record in records.values() if record["tries"]]
    assert len(taken_over) == 1
    assert "stopped without a word" in taken_over[0]["tries"][0]["reason"]
    begun = Counter((line[0], line[2]) for _, line in windows(trace))
    assert len(begun) == 15
    assert sum(begun.values()) <= 16  # at most the window that was cut off was begun twice
    assert not any((out / BATCH / LEASES).iterdir())

    identity = json.loads((out / BATCH / IDENTITY).read_text())
    identity["versions"]["geo4d"] = "0.0.9"
    (out / BATCH / IDENTITY).write_text(json.dumps(identity))
    code, _, error = batches.run(*words, trace=trace, sleep=1.0)
    assert code == OutputError.exit_code
    assert "versions.geo4d: was 0.0.9" in error
    assert sum(Counter((line[0], line[2]) for _, line in windows(trace)).values()) == sum(begun.values())


@pytest.mark.slow
def test_workers_of_a_killed_coordinator_end_in_the_middle_of_a_window(tmp_path) -> None:
    trace = tmp_path / "trace"
    trace.mkdir()
    batches.write_clip(tmp_path / "in/a.mp4", 4)
    process = batches.start("batch", tmp_path / "in", "-o", tmp_path / "out", *FAST, trace=trace, sleep=600)
    await_true(lambda: windows(trace), "no window was begun")
    worker = windows(trace)[0][0]
    process.kill()
    process.communicate(timeout=60)
    try:
        await_true(lambda: not is_alive(worker), "the worker outlives its coordinator", 30)
    finally:
        if is_alive(worker):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_gives_clips_back_with_their_windows(tmp_path, number: signal.Signals) -> None:
    out, trace = tmp_path / "out", tmp_path / "trace"
    trace.mkdir()
    batches.write_clip(tmp_path / "in/a.mp4", 14)
    words = ("batch", tmp_path / "in", "-o", out, *FAST)
    process = batches.start(*words, trace=trace, sleep=1.0)
    await_true(lambda: len(windows(trace)) == 2, "the second window was never begun")
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number, error
    assert not any((out / BATCH / LEASES).iterdir())
    assert Ledger(out / BATCH / LEDGER).scan() == {}  # no try was counted
    assert "# 0 clips" in (out / "summary.md").read_text()
    folder = next((out / CLIPS).iterdir())
    assert len(list((folder / "windows").glob("window_0*"))) == 1


@pytest.mark.slow
def test_videos_of_a_bucket_are_downloaded_reconstructed_and_removed(tmp_path) -> None:
    store = pytest.importorskip("fsspec").filesystem("memory")
    video = batches.write_clip(tmp_path / "a.mp4", 2)
    store.pipe("/batch/videos/a.mp4", video.read_bytes())
    store.pipe("/batch/videos/broken.mp4", b"no video")
    said: list[str] = []
    try:
        tally = run_batch(
            ["memory://batch/videos"],
            tmp_path / "out",
            options=BatchSettings(table="md", work=tmp_path / "local"),
            say=said.append,
            max_size=64,
            motion=False,
        )
    finally:
        store.rm("/batch", recursive=True)
    assert tally.codes == {0: 1, 3: 1}
    records = {r["source"]: r for r in Ledger(tmp_path / "out" / BATCH / LEDGER).scan().values()}
    done = records["memory://batch/videos/a.mp4"]
    assert done["source_sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
    assert records["memory://batch/videos/broken.mp4"]["state"] == "failed"
    assert not any((tmp_path / "local").iterdir())
    assert any("1 ended with exit code 3" in line for line in said)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"shard": "5/4"}, ValueError, "1 to N"),
        ({"shard": "1/100000"}, InputError, "share"),
    ],
)
def test_wrong_options_are_refused_before_any_work(tmp_path, options, error, said) -> None:
    batches.write_clip(tmp_path / "in/a.mp4", 4)
    with pytest.raises(error, match=said):
        run_batch([str(tmp_path / "in")], tmp_path / "out", options=BatchSettings(table="md", **options))
    assert not (tmp_path / "out").exists()


def test_what_killed_coordinators_have_fetched_goes_with_the_next_one(tmp_path) -> None:
    with (
        Presence(tmp_path / "c") as killed,
        Presence(tmp_path / "c") as alive,
        Presence(tmp_path / "c") as ours,
    ):
        for name in (killed.id, alive.id, ours.id, "ended"):
            (tmp_path / f"{_prefix(tmp_path)}{name}" / "clip").mkdir(parents=True)
        of_others = f"{_prefix(tmp_path / 'another')}{killed.id}"
        (tmp_path / of_others).mkdir()
        (tmp_path / "other").mkdir()
        os.utime(tmp_path / "c" / killed.id, (0, 0))
        _tidy(tmp_path, _prefix(tmp_path), ours, 600.0)
        left = {path.name.removeprefix(_prefix(tmp_path)) for path in tmp_path.iterdir()}
    assert left == {"c", "other", of_others, alive.id, ours.id}


def test_an_output_of_others_is_refused_before_any_work(tmp_path) -> None:
    batches.write_clip(tmp_path / "in/a.mp4", 4)
    with pytest.raises(OutputError, match="left alone"):
        run_batch([str(tmp_path / "in")], tmp_path / "in", options=BatchSettings(table="md"))


def test_a_coordinator_loads_no_torch_and_workers_of_a_new_batch_load_it_side_by_side(tmp_path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").write_bytes(b"x")
    script = (
        "import sys\n"
        "import geo4d.apps.commands.batch\n"
        "from geo4d.batch.local import LocalEngine, find_gpus\n"
        "from geo4d.batch.run import run_batch\n"
        "from geo4d.batch.settings import BatchSettings\n"
        "def start(engine, number):\n"
        "    print(number, 'torch' in sys.modules)\n"
        "    if number == engine.count - 1:\n"
        "        raise KeyError\n"
        "LocalEngine.start = start\n"
        "run_batch(sys.argv[1:], 'out', options=BatchSettings(workers=2, table='md'))\n"
    )
    for name in ("b.mp4", "c.mp4"):
        (tmp_path / "clips" / name).write_bytes(b"y")
    done = subprocess.run(
        [sys.executable, "-c", script, "clips"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert "KeyError" in done.stderr
    assert done.stdout.splitlines() == ["0 False", "1 False"]
