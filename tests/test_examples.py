"""The example of an adapter, run in a process of its own as its page says; CI runs the other examples, too."""

import json
import os
import subprocess
import sys

import pytest


def test_the_adapter_finds_the_world_of_its_network(tmp_path, repository):
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(repository / "examples" / "adapter.py"), str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "depth is off by 0.0" in ran.stdout
    assert (tmp_path / "adapter").is_dir()


NOTEBOOK = "examples/quickstart.ipynb"


def test_the_notebook_carries_no_outputs(repository):
    cells = json.loads((repository / NOTEBOOK).read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4
    assert [cell["source"] for cell in code if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.slow
def test_the_notebook_runs_and_shows_pictures_bars_and_files(repository, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    book = nbformat.read(repository / NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        book, timeout=900, resources={"metadata": {"path": str(repository / "examples")}}
    ).execute()
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    pages = ["".join(output.get("data", {}).get("text/html", "") for output in cell.outputs) for cell in code]
    assert pages[0].count("<img") == 3  # the clip
    assert "<progress" in pages[1]
    assert "Reconstruction of clip.mp4: 32 frames" in pages[1]
    plots = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(plots) == 2
    assert "path.txt (32, 8)" in "".join(output.get("text", "") for output in code[-1].outputs)
