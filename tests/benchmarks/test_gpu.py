"""The script that measures a GPU, at its smallest size on the CPU: there is no second try on such a machine."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.on_gpu.steps import Bench, Records, Step, run_steps

PARTS = {"main", "goldens", "geo4d", "crafter", "caps", "training", "variants"}


def test_everything_runs_at_the_smallest_size(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("accelerate")
    assert gpu.main(["--device", "cpu", "--output", str(tmp_path)]) == 0
    records = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert set(records) == PARTS
    steps = {f"{part}/{name}": step for part, r in records.items() for name, step in r["steps"].items()}
    assert set(steps) == set(gpu.ORDER)
    assert {step["state"] for step in steps.values()} == {"done"}
    assert all(step["result"] and "load" in step for step in steps.values())
    assert all(record["environments"][0]["torch"] == torch.__version__ for record in records.values())
    table = capfd.readouterr().out.partition("\nstep ")[2]
    assert all(name.partition("/")[2] in table for name in gpu.ORDER)


def bench() -> Bench:
    return Bench(torch.device("cpu"))


def test_a_failure_leaves_its_traceback_and_what_was_measured(tmp_path: Path) -> None:
    def half(bench: Bench, result: dict) -> None:
        result["before"] = 3
        raise KeyError("lost")

    def whole(bench: Bench, result: dict) -> None:
        result["value"] = 7

    records = Records(tmp_path)
    steps = [Step("a", "half", 1, half), Step("a", "whole", 1, whole), Step("b", "late", 500, whole)]
    assert run_steps(steps, bench(), records, time.time() + 60)
    found = records.read("a")["steps"]
    assert found["half"]["state"] == "failed"
    assert found["half"]["result"] == {"before": 3}
    assert "in half" in found["half"]["traceback"]
    assert found["whole"] | {"state": "done", "result": {"value": 7}} == found["whole"]
    late = records.read("b")["steps"]["late"]
    assert late["state"] == "skipped"
    assert "500 s expected" in late["reason"]


def test_a_step_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.on_gpu.steps.LIMIT_EXTRA", 0.2)
    records = Records(tmp_path)
    before = signal.getsignal(signal.SIGALRM)
    assert run_steps([Step("a", "long", 0, lambda b, r: time.sleep(30))], bench(), records, time.time() + 60)
    assert records.read("a")["steps"]["long"]["error"].startswith("TimeoutError")
    assert signal.getsignal(signal.SIGALRM) is before


def test_what_has_a_final_state_is_not_started_again(tmp_path: Path) -> None:
    runs: list[str] = []
    steps = [Step("a", name, 1, lambda b, r, n=name: runs.append(n)) for name in ("first", "second")]
    records = Records(tmp_path)
    records.put(steps[0], state="running")
    assert gpu.mark_stopped(tmp_path, "exit code -9") == ["a/first"]
    assert run_steps(steps, bench(), records, time.time() + 60)
    assert runs == ["second"]
    assert records.read("a")["steps"]["first"] == {"state": "crashed", "error": "exit code -9"}


def test_networks_are_held_only_as_long_as_a_step_says(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def makes(bench: Bench, result: dict) -> None:
        seen.append(set(bench.held))
        bench.hold("large", object)

    steps = [Step("a", "1", 1, makes), Step("a", "2", 1, makes, keeps=("large",)), Step("a", "3", 1, makes)]
    assert run_steps(steps, bench(), Records(tmp_path), time.time() + 60)
    assert seen == [set(), {"large"}, set()]


def test_a_process_that_dies_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's loop, with a child that kills itself in its first step."""
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--output') + 1]); path = folder / 'a.json'\n"
        "record = json.loads(path.read_text()) if path.exists() else {'part': 'a', 'steps': {}}\n"
        "name = f'step {len(record[\"steps\"])}'\n"
        "record['steps'][name] = {'state': 'running'}; path.write_text(json.dumps(record))\n"
        "if len(record['steps']) < 3: os.kill(os.getpid(), 9)\n"
        "record['steps'][name] = {'state': 'done'}; path.write_text(json.dumps(record))\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    output = tmp_path / "out"
    assert gpu.main(["--device", "cpu", "--output", str(output)]) == 2
    states = [step["state"] for step in json.loads((output / "a.json").read_text())["steps"].values()]
    assert states == ["crashed", "crashed", "done"]
    assert os.listdir(output) == ["a.json"]
