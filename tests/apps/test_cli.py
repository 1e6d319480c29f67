import re
import signal
import subprocess
import sys
from importlib import import_module

import pytest

from geo4d.apps import cli
from geo4d.apps.commands import doctor
from geo4d.errors import Geo4DError, GeometryError, InputError, MissingExtraError, OutputError


def test_every_command_has_a_module_with_options(repository):
    present = {path.stem for path in (repository / "geo4d/apps/commands").glob("*.py")} - {"__init__"}
    assert present == set(cli.COMMANDS)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_of_every_command(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert "usage: geo4d" in capsys.readouterr().out
    assert import_module(f"geo4d.apps.commands.{name}").__doc__


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


def test_doctor_knows_the_extras_of_the_project(repository):
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, packages in doctor.EXTRAS.items():
        assert sorted(re.split(r"[<>=]", package)[0] for package in extras[name]) == sorted(packages)
    assert set(extras) - set(doctor.EXTRAS) <= {"test", "dev"}


def test_doctor_reports(capsys):
    lines, _ = doctor.examine()
    text = "\n".join(lines)
    for word in ("torch", "FFmpeg", "memory", "extra", "model"):
        assert word in text


def test_doctor_names_a_library_outside_its_range(monkeypatch):
    import importlib.metadata as metadata

    assert doctor._satisfies("19.0.2", "<20")
    assert not doctor._satisfies("20.0", "<20")
    assert doctor._satisfies("2.13.0+cpu", ">=2.10")
    assert not doctor._satisfies("2.9.1", ">=2.10")
    assert doctor._satisfies("17.1", ">=17.1.0")
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["av<20,>=17.1", "einops>=0.8", "h5py>=99; extra == 'eval'"]
    )
    assert doctor._incompatible() == []
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "20.0.1" if name == "av" else real(name))
    assert doctor._incompatible() == ["av 20.0.1 is outside <20,>=17.1: pip install 'av<20,>=17.1'"]


def test_doctor_is_not_healthy_with_a_decoder_that_does_not_work(monkeypatch):
    monkeypatch.setattr("geo4d.video.decoder.decoder_problem", lambda: "PyAV 99 does not work")
    lines, healthy = doctor.examine()
    assert not healthy
    assert "decoder   PyAV 99 does not work" in lines
