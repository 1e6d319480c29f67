"""``geo4d batch`` on the command line; whole batches are in ``tests/batch``."""

from pathlib import Path

import pytest

from geo4d.apps.cli import USAGE_ERROR, main
from geo4d.apps.commands.batch import BatchOptions
from geo4d.apps.commands.reconstruct import ReconstructOptions
from geo4d.batch.tally import Tally
from geo4d.errors import BatchError, InputError


def test_help_shows_examples_and_the_options_of_a_single_run(capsys) -> None:
    assert main(["batch", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--shard", "s3://bucket", "--workers", "--stride", "--model-option", "--clip-tries"):
        assert word in text


def test_both_commands_make_the_same_run_of_the_same_options() -> None:
    same = {"model": "moge", "model_option": ("correction=0",)}
    batch = BatchOptions(sources=("a",), output=Path("o"), **same)
    assert batch.keywords() == ReconstructOptions(video=Path("a"), output=Path("o"), **same).keywords()


@pytest.mark.parametrize(
    ("words", "code"),
    [(["-o", "out"], USAGE_ERROR), (["no-such-place", "-o", "out", "--table", "md"], InputError.exit_code)],
)
def test_without_clips_nothing_begins(tmp_path, monkeypatch, words, code) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["batch", *words]) == code
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("codes", "code"), [((0, 0), 0), ((3, 3), 3), ((0, 7), BatchError.exit_code)])
def test_the_exit_code_is_by_outcome_and_quiet_is_quiet(tmp_path, monkeypatch, capsys, codes, code) -> None:
    def run_batch(sources, output, *, say, **rest):
        say("a line")
        tally = Tally(len(codes), lambda line: None)
        for one in codes:
            tally.skip({"exit_code": one})
        return tally

    monkeypatch.setattr("geo4d.batch.run.run_batch", run_batch)
    assert main(["batch", "a", "-o", str(tmp_path / "out"), "--quiet"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("summary.md" in shown.err) == (code != 0)
