"""What a user can type ends with a documented exit code and one line, never with 70 (a bug), never with a traceback."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo4d.apps import cli
from geo4d.models import base
from tests.support.commands import options_of
from tests.support.truth import BoxWorld, TruthPredictor

DOCUMENTED = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
WORLD = BoxWorld((24, 32))


def load_stub(name, weights=None, device=None, dtype=None, **options):
    return TruthPredictor(WORLD, length=8, stride=4, **options)


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    """A model ``stub`` that knows the truth, and one thread: the maps are tiny."""
    module = types.ModuleType("geo4d_test_stub")
    module.load = load_stub
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(base.PREDICTORS, "stub", module.__name__)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    import cv2

    folder = tmp_path_factory.mktemp("clip") / "frames"
    folder.mkdir()
    for t in range(12):
        picture = (WORLD.rgb(t).numpy() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{t:02d}.png"), picture[..., ::-1])
    return folder


def run(clip, output, *words) -> int:
    return cli.main(
        ["reconstruct", str(clip), "-o", str(output), "--model", "stub", "--quiet", "--tries", "0"]
        + ["--output-size", "model", *map(str, words)]
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--device", "nope"], 2, "expected a device that torch has on this machine"),
        (["--device", "cuda:99"], 2, "expected a device"),
        (["--device", "meta"], 2, "expected a device"),
        (["--intrinsics", "nan", "10", "5", "5"], 2, "all finite"),
        (["--intrinsics", "10", "10", "inf", "5"], 2, "all finite"),
        (["--intrinsics", "10", "-10", "5", "5"], 2, "fx, fy > 0"),
        (["--intrinsics", "1e-300", "1e-300", "5", "5"], 2, "fx fy cx cy of a camera"),
        (["--intrinsics", "10", "10", "1e9", "5"], 2, "fx fy cx cy of a camera"),
        (["--window-stride", "0"], 2, "window stride"),
        (["--window-stride", "999"], 2, "window stride of 1 to 8 frames"),
        (["--num-steps", "0"], 2, "sampling step"),
        (["--num-steps", "3"], 2, "options that the model stub has"),  # which takes no steps
        (["--seed", "99999999999999999999999"], 2, "seed"),
        (["--seed", "-1"], 2, "seed"),
        (["--fov-deg", "nan"], 2, "field of view"),
        (["--stride", "0"], 2, "stride"),
        (["--start", "5", "--stop", "5"], 2, "start < stop"),
        (["--start", "99"], 3, "no frame from 99"),
        (["--output-size", "0x0"], 2, "output size"),
        (["--output-size", "99999999x9"], 2, "output size of at most 65536"),
        (["--model-option", "a=" + "[" * 5000], 2, "value of less depth"),
        (["--weights", "/nonexistent"], 0, ""),  # the stub has none
        (["--model", "nope"], 2, "as the model"),
        (["--model-option", "nope"], 2, "NAME=VALUE"),
        (["--model-option", "nope=1"], 2, "unexpected keyword"),
        (["--ground-truth", "/nonexistent"], 3, "/nonexistent"),
        (["--json", "/nonexistent/x.json"], 2, "--ground-truth"),
    ],
)
def test_options(clip, tmp_path, capsys, words, code, says):
    assert run(clip, tmp_path / "out", *words) == code
    text = " ".join(capsys.readouterr().err.replace("│", " ").split())  # the option parser draws a box
    assert says in text
    assert "Traceback" not in text
    assert "bug" not in text


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there(clip, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert run(clip, tmp_path / "out", "--device", name) == 2
    assert "(cpu)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a" * 256, "a" * 300, "x\0y", "new\nline", "..", "\udcff"])
def test_names_of_outputs(clip, tmp_path, name):
    code = run(clip, f"{tmp_path}/{name}")
    assert code in (0, 2, 4), code


def test_the_place_of_the_run_is_taken(clip, tmp_path):
    (tmp_path / ".out.geo4d-run").write_text("mine")
    assert run(clip, tmp_path / "out") == 4
    assert (tmp_path / ".out.geo4d-run").read_text() == "mine"


numbers = st.one_of(
    st.integers(-3, 40).map(str),
    st.sampled_from(
        ["nan", "inf", "-inf", "1e400", "0x10", "", " ", "٣", "²", "9" * 30, "1e-320", "None", "true"]
    ),
    st.floats(allow_nan=True).map(repr),
    st.text(max_size=4).filter(lambda text: "\0" not in text),
)
OPTIONS = options_of("reconstruct")


@pytest.fixture(scope="module")
def monkeypatch_module(tmp_path_factory):
    """Relative names that options are given lie in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield patch


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_any_value_of_any_option(clip, tmp_path_factory, monkeypatch_module, data):
    words = []
    for name in data.draw(st.lists(st.sampled_from(sorted(OPTIONS)), min_size=1, max_size=2, unique=True)):
        words.append(name)
        words += [data.draw(numbers) for _ in range(OPTIONS[name])]
    code = run(clip, tmp_path_factory.mktemp("fuzz") / "out", *words)
    assert code in DOCUMENTED, (code, words)


def test_export_options(clip, tmp_path, capsys):
    assert run(clip, tmp_path / "out") == 0
    for words, code in {
        ("--format", "ply", "-o", f"{tmp_path}/{'a' * 300}.ply"): 4,
        ("--format", "npz", "-o", f"{tmp_path}/out/manifest.json/x.npz"): 4,
        ("--format", "ply", "-o", f"{tmp_path}/x.ply", "--frames", "a:b"): 2,
        ("--format", "ply", "-o", f"{tmp_path}/x.ply", "--frames", "::0"): 2,
        ("--format", "ply", "-o", f"{tmp_path}/x.ply", "--frames", "99"): 2,
        ("--format", "ply", "-o", f"{tmp_path}/x.ply", "--voxel-size", "1e-30"): 2,
        ("--format", "obj", "-o", f"{tmp_path}/x.obj"): 2,
    }.items():
        assert cli.main(["export", str(tmp_path / "out"), *words]) == code, words
    assert "Traceback" not in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_doubtful_result_is_written_and_told(clip, tmp_path, capsys):
    hurt = ["--model-option", "nan_windows=[0]"]
    assert run(clip, tmp_path / "a", *hurt) == 9
    text = capsys.readouterr().err
    assert "not finite in 1 windows (0)" in text
    assert text.splitlines()[-1].startswith("error: ")
    assert (tmp_path / "a" / "manifest.json").is_file()
    assert run(clip, tmp_path / "b", *hurt, "--keep-going") == 0
    assert cli.main(["report", str(tmp_path / "a")]) == 0
    assert "not finite in 1 windows" in (tmp_path / "a_report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_run_as_an_interruption_does(clip, tmp_path, number):
    code = (
        "import os, signal, sys, types\n"
        "from tests.support.truth import BoxWorld, TruthPredictor\n"
        "from geo4d.apps import cli\n"
        "from geo4d.models import base\n"
        "class Stub(TruthPredictor):\n"
        "    def predict(self, window, **rest):\n"
        f"        if window.index == 1 and '--resume' not in sys.argv: os.kill(os.getpid(), {int(number)})\n"
        "        return super().predict(window, **rest)\n"
        "stub = types.ModuleType('stub')\n"
        "stub.load = lambda name, **rest: Stub(BoxWorld((24, 32)), length=8, stride=4)\n"
        "sys.modules['stub'] = stub\n"
        "base.PREDICTORS['stub'] = 'stub'\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = [
        sys.executable,
        "-c",
        code,
        "reconstruct",
        str(clip),
        "-o",
        str(tmp_path / "out"),
        "--model",
        "stub",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert ended.returncode == 128 + number
    assert ended.stderr.splitlines()[-1] == f"error: ended by {number.name}"
    assert "--resume" in ended.stderr
    assert not (tmp_path / "out").exists()
    again = subprocess.run([*words, "--resume"], capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / ".out.geo4d-run").exists()
