"""Opening the rerun viewer: the recording that it is given, and what happens when it cannot open."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geo4d.errors import OutputError
from geo4d.viewer import rerun_view
from tests.viewer.test_viser_view import scene  # noqa: F401


def test_rerun_opens_a_recording_that_it_can_read(scene, monkeypatch) -> None:  # noqa: F811
    pytest.importorskip("rerun")
    opened = []

    def look(command: list[str], *, check: bool) -> None:
        assert check
        assert command[:5] == [sys.executable, "-m", "rerun", "--bind", "127.0.0.1"]  # this machine only
        recording = Path(command[5])
        assert recording.is_file()
        stats = real_run(
            [sys.executable, "-m", "rerun", "rrd", "stats", recording], capture_output=True, text=True
        )
        assert stats.returncode == 0, stats.stderr
        opened.append((recording, stats.stdout))

    real_run = subprocess.run
    monkeypatch.setattr(rerun_view.subprocess, "run", look)
    rerun_view.view_in_rerun(scene)
    ((recording, stats),) = opened
    assert "num_entity_paths" in stats
    assert not recording.exists()  # it lives as long as the viewer


def test_a_viewer_that_cannot_open_says_what_to_do(scene, monkeypatch) -> None:  # noqa: F811
    pytest.importorskip("rerun")

    def fail(command: list[str], *, check: bool) -> None:
        raise subprocess.CalledProcessError(101, command)

    monkeypatch.setattr(rerun_view.subprocess, "run", fail)
    with pytest.raises(OutputError, match=r"code 101.*--format rrd"):
        rerun_view.view_in_rerun(scene)
    one_scene = dataclasses.replace(scene, scene=np.zeros(6, int))
    with pytest.raises(ValueError, match="scene"):
        rerun_view.view_in_rerun(one_scene, scene=4)
