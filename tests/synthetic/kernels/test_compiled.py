"""The compiled cache goes by the bytes of all files: a function that calls one in another file is renewed with it."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

CALLEE = """
from pathlib import Path
from geo4d.synthetic.kernels.compiled import compiler_for

kernel = compiler_for(sorted(Path(__file__).parent.glob("*.py")))

@kernel
def inner():
    return {value}
"""
CALLER = """
from toy.callee import inner, kernel

@kernel
def outer():
    return inner() + 0
"""


@pytest.mark.slow
def test_a_change_in_another_file_reaches_compiled_callers(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "caller.py").write_text(CALLER)

    def result(value: int) -> str:
        (folder / "callee.py").write_text(CALLEE.format(value=value))
        command = [sys.executable, "-c", "from toy.caller import outer; print(outer())"]
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
        )
        return done.stdout.strip()

    assert result(1) == "1"
    assert result(2) == "2"
    assert len(list((folder / "__pycache__").glob("caller.outer*.nbi"))) == 2
