"""A real process of the service: what it says of itself, and that it ends with its service."""

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from geo4d.batch.local import THREAD_VARIABLES
from geo4d.config import RunConfig
from geo4d.service.child import Setup, serve_tasks
from geo4d.service.tasks import Check
from tests.support.served import await_true

ROOT = Path(__file__).resolve().parents[2]


def test_a_process_without_a_model_looks_at_clips(tmp_path) -> None:
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    setup = Setup(None, 1, dict.fromkeys(THREAD_VARIABLES, "1"))
    process = context.Process(target=serve_tasks, args=(theirs, setup), daemon=True)
    process.start()
    theirs.close()
    assert pipe.recv() == ("ready", None)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.mp4").write_text("no film")
    pipe.send(Check(tmp_path / "source/a.mp4", RunConfig(), 10))
    kind, note = pipe.recv()
    assert (kind, note["exit_code"]) == ("ended", 3)
    pipe.close()
    process.join(60)
    assert process.exitcode == 0


def test_a_model_that_cannot_be_loaded_is_said() -> None:
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(
        target=serve_tasks, args=(theirs, Setup({"model": "nothing"}, 1, {})), daemon=True
    )
    process.start()
    theirs.close()
    kind, code, reason = pipe.recv()
    assert (kind, code) == ("refused", 2)
    assert "nothing" in reason
    process.join(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_it_ends_when_its_service_is_killed(tmp_path) -> None:
    code = f"""
import os, sys, time
from multiprocessing import get_context
from geo4d.service.child import Setup, serve_tasks
if __name__ == "__main__":
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve_tasks, args=(theirs, Setup(None, 1, {{}})))
    process.start()
    pipe.recv()
    open({str(tmp_path / "pid")!r}, "w").write(str(process.pid))
    os.kill(os.getpid(), 9)
"""
    (tmp_path / "main.py").write_text(code)
    subprocess.run(
        [sys.executable, str(tmp_path / "main.py")], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    pid = int((tmp_path / "pid").read_text())

    def is_gone() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    if not Path("/proc/self").exists():
        pytest.skip("no /proc to look at")
    await_true(is_gone, "the process works for nobody", 30)
