"""The command as a process of its own: it is killed, goes on, and ends when it is asked to."""

import os
import signal
import sys
from pathlib import Path

import pytest

from geo4d.apps.cli import main
from geo4d.apps.commands.serve import ServeOptions
from tests.support import batch_stub
from tests.support.served import Running, await_true, free_port, is_alive, windows


def test_this_machine_alone_reaches_it_unless_asked() -> None:
    options = ServeOptions()
    assert options.how.host == "127.0.0.1"
    assert not options.how.fetch_urls
    assert options.keywords()["model"] == "tiny"


def test_other_machines_need_a_token(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("GEO4D_TOKEN", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--folder", str(tmp_path / "jobs")]) == 2
    assert "--token-file" in capsys.readouterr().err
    assert not (tmp_path / "jobs").exists()


def test_without_the_extra_it_is_named(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", "--folder", str(tmp_path / "jobs")]) == 6
    assert "geo4d[serve]" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")
def test_a_service_that_is_killed_goes_on_with_its_jobs(tmp_path) -> None:
    clip = batch_stub.write_clip(tmp_path / "box.mp4", 10)
    trace, folder, port = tmp_path / "trace", tmp_path / "jobs", free_port()
    trace.mkdir()
    first = Running(folder, port, sleep=1.0, trace=trace)
    job = first.send(clip)
    await_true(lambda: list((folder / "jobs" / job).rglob("window_000000_try0*")), "no window was kept")
    processes = first.children()
    assert processes
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.communicate()
    await_true(lambda: not any(map(is_alive, processes)), "processes work for nobody", 30)
    assert windows(trace).count("0") == 1

    second = Running(folder, port, trace=trace)
    await_true(lambda: second.ask(f"/api/jobs/{job}")["state"] == "done", "the job never ended")
    assert second.ask(f"/api/jobs/{job}")["summary"]["frames"] == 10
    assert windows(trace).count("0") == 1  # it was not made again
    processes = second.children()
    second.process.send_signal(signal.SIGTERM)
    said, error = second.process.communicate(timeout=60)
    assert second.process.returncode == 0, error
    assert "1 of an earlier start go on" in said
    assert "[as the package]" in said  # the licence
    assert said.rstrip().endswith("stopped; jobs go on with the next start")
    assert error == ""
    await_true(lambda: not any(map(is_alive, processes)), "processes work for nobody", 30)


def test_two_services_on_one_folder(tmp_path, monkeypatch, capsys) -> None:
    from geo4d.service.store import JobStore

    with JobStore(tmp_path / "jobs"):
        assert main(["serve", "--folder", str(tmp_path / "jobs"), "--port", str(free_port())]) == 4
    assert "another service works on" in capsys.readouterr().err
