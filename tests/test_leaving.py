"""How a process ends: with what was registered for the end and all of its output, but without taking itself apart."""

import os
import subprocess
import sys

import pytest

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(script: str, **words) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, **words)


def test_what_was_registered_for_the_end_runs_and_output_is_whole() -> None:
    done = run(
        "import atexit, sys, tempfile, weakref\n"
        "from geo4d.errors import leave\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "class Slow:\n"
        "    def __del__(self): print('taken apart')\n"
        "kept = Slow()\n"
        "atexit.register(lambda: print('registered'))\n"
        "sys.stdout.write(folder.name + '\\n')\n"
        "leave(9)\n"
    )
    name, *rest = done.stdout.splitlines()
    assert (done.returncode, rest, done.stderr) == (9, ["registered"], "")
    assert run(f"import os; raise SystemExit(os.path.exists({name!r}))").returncode == 0


@pytest.mark.parametrize(("before", "after"), [(0, 4), (3, 3)])
def test_output_that_cannot_be_written_is_no_success(before: int, after: int) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", f"from geo4d.errors import leave\nprint('x')\nleave({before})"],
            stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, env=BUFFERED,
        )  # fmt: skip
    assert done.returncode == after


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from geo4d.errors import leave\ninput()\nprint('x')\nleave(0)"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=BUFFERED,
    )  # fmt: skip
    process.stdout.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert (process.wait(60), process.stderr.read()) == (0, b"")
