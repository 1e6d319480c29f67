import re
import shlex
import signal
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest

from geo4d.apps import cli
from geo4d.errors import Geo4DError, GeometryError, InputError, MissingExtraError, OutputError

NEEDS_TORCH = pytest.mark.skipif(find_spec("torch") is None, reason="asks what trains and what evaluates")
NAMES = [pytest.param(name, marks=NEEDS_TORCH) if name == "train" else name for name in cli.COMMANDS]


def test_every_command_has_a_module_with_options(repository):
    present = {path.stem for path in (repository / "geo4d/apps/commands").glob("*.py")} - {"__init__"}
    assert present == set(cli.COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command(name, capsys):
    assert cli.main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert "usage: geo4d" in said
    assert "``" not in said
    assert "{None}" not in said
    assert not [word for word in re.findall(r"[A-Z]+", said) if word in ("STR", "INT", "FLOAT")]
    module = import_module(f"geo4d.apps.commands.{name}")
    assert module.__doc__
    assert len(module.EXAMPLES) >= 2
    assert all(example in said for example in module.EXAMPLES)


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_the_help_are_commands_that_exist(name, monkeypatch):
    module = import_module(f"geo4d.apps.commands.{name}")
    got = []
    real = module.run

    def run(options):
        got.append(options)
        return 0

    run.__annotations__ = real.__annotations__
    monkeypatch.setattr(module, "run", run)
    for example in module.EXAMPLES:
        program, command, *words = shlex.split(example)
        assert (program, command) == ("geo4d", name)
        assert cli.main([command, *words]) == 0, example
    expected = get_type_hints(real)["options"]
    assert [isinstance(options, expected) for options in got] == [True] * len(module.EXAMPLES)


@NEEDS_TORCH
def test_train_lists_its_stages(capsys):
    cli.main(["train", "--help"])
    said = capsys.readouterr().out
    assert "--family tiny --preset full: codec, pairs, clips, windows, depth, calibration" in said
    assert "--family geo4d --preset full: decoder, points" in said
    assert "--family geometrycrafter --preset full: maps, maps-video" in said


@pytest.mark.parametrize(
    "words",
    [
        ["reconstruct", "https://example.com/a.mp4", "-o", "out"],
        ["reconstruct", "a.mp4", "-o", "https://bucket/out"],
        ["pose", "http://host/result", "-o", "out"],
        ["report", "rtsp://host/stream"],
    ],
)
def test_addresses_are_refused_with_what_to_do(words, capsys):
    assert cli.main(words) == 3
    assert "download it first" in capsys.readouterr().err


def test_a_report_is_an_html_page(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path), "-o", "x.pdf"]) == 2
    assert "ending in .html" in capsys.readouterr().err


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from geo4d.apps.cli import main\n"
        "assert main(['--help']) == 0 and main(['--version']) == 0\n"
        "heavy = {'torch', 'numpy', 'av', 'zarr', 'tyro', 'viser'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "main(['reconstruct', '--help'])\n"
        "heavy = {'torch', 'av', 'zarr', 'viser'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_wrong_usage(capsys):
    assert cli.main([]) == 2
    assert cli.main(["recontsruct"]) == 2
    assert "unknown command 'recontsruct'" in capsys.readouterr().err
    assert cli.main(["reconstruct"]) == 2
    assert cli.main(["reconstruct", "a.mp4", "-o", "b", "--no-such-flag"]) == 2


def test_several_videos_are_shown_the_way_to_a_batch(tmp_path, capsys):
    names = [str(tmp_path / f"{letter}.mp4") for letter in "abc"]
    for name in names:
        Path(name).touch()
    assert cli.main(["reconstruct", *names, "-o", str(tmp_path / "out")]) == 2
    assert (
        f"takes one video, got 3; for many: geo4d batch {names[0]} {names[1]} ..." in capsys.readouterr().err
    )
    assert cli.main(["reconstruct", "-o", str(tmp_path), names[0], "--no-such-flag"]) == 2
    assert "geo4d batch" not in capsys.readouterr().err  # a folder that is there, and a video


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Geo4DError("x"), 1),
        (ValueError("x"), 2),
        (InputError("x"), 3),
        (OutputError("x"), 4),
        (MissingExtraError("numba", "synthetic", "drawing"), 6),
        (MemoryError(), 7),
        (GeometryError("x"), 8),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 6),
        (ModuleNotFoundError("No module named 'geo4d.lost'", name="geo4d.lost"), 70),
        (KeyError("x"), 70),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "x"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_a_code(monkeypatch, capsys, error, code):
    def fail(name, words):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["doctor"]) == code
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    cli.main(["doctor", "--debug"])
    assert type(error).__name__ in capsys.readouterr().err


def test_what_stumbles_over_an_interruption_does_not_hide_it(monkeypatch, capsys):
    """A library that is interrupted while it opens a file may fail to close it."""

    def fail(name, words):
        try:
            raise cli.Ended(signal.SIGTERM)
        finally:
            raise AttributeError("no attribute '_lock'")

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["doctor"]) == 143
    assert capsys.readouterr().err == "error: ended by SIGTERM\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist"), (b"", "empty"), (b"just text, no video at all\n", "it is text")],
)
def test_bad_input_from_the_outside(tmp_path, capsys, content, says):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["reconstruct", str(path), "-o", str(tmp_path / "out")]) == 3
    text = capsys.readouterr().err
    assert says in text
    assert "Traceback" not in text
    assert [p.name for p in tmp_path.iterdir()] in ([], ["clip.mp4"])


def test_bad_output_from_the_outside(tmp_path, capsys):
    (tmp_path / "a file").write_text("precious")
    for output in (tmp_path / "a file", tmp_path / "a file" / "below"):
        assert cli.main(["reconstruct", "x.mp4", "-o", str(output)]) == 4
    assert (tmp_path / "a file").read_text() == "precious"
    assert capsys.readouterr().err.count("error: ") == 2


@NEEDS_TORCH
def test_an_unknown_benchmark_is_named_before_its_data_is_asked_for(capsys):
    assert cli.main(["evaluate", "nonsense"]) == 2
    assert "as the benchmark, got 'nonsense'" in capsys.readouterr().err
