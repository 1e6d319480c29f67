from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from geo4d.apps.options import CONFIG, declared, help_text, readable


@dataclass(frozen=True)
class Inner:
    """Settings.

    Attributes:
        stop: where to end.
        fast: be quick.
        kind: of one of two.
    """

    stop: int | None = None
    fast: bool = True
    kind: Literal["a", "b"] | None = None
    intrinsics: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Base:
    model: str = "tiny"
    """Which one."""
    settings: tyro.conf.OmitArgPrefixes[Inner] = field(default_factory=Inner)


@dataclass(frozen=True)
class Options(Base):
    video: Annotated[Path, tyro.conf.Positional]
    """What to read."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Where to write."""
    mine: Annotated[float, tyro.conf.arg(metavar="MINE")] = 1.0


def shown(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(
            readable(Options), args=["--help"], config=CONFIG, description=help_text("``Do``.", ["x", "y"])
        )
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_says_what_values_are(capsys):
    said = shown(capsys)
    for words in (
        "Do. Examples: x y",
        "VIDEO What to read.",
        "-o OUT, --output OUT Where to write.",
        "--model NAME Which one.",
        "--stop N where to end.",
        "--no-fast be quick.",
        "--kind {a,b} of one of two.",
        "--intrinsics FX FY CX CY",
        "--mine MINE",
    ):
        assert words in said


def test_parsing_gives_the_options_themselves():
    words = ["clip.mp4", "-o", "out", "--stop", "7", "--no-fast", "--intrinsics", "1", "2", "3", "4"]
    found = declared(tyro.cli(readable(Options), args=words, config=CONFIG))
    assert type(found) is Options
    assert type(found.settings) is Inner
    again = declared(tyro.cli(readable(Options), args=words, config=CONFIG))
    assert found == again
    assert found.settings == replace(Inner(), stop=7, fast=False, intrinsics=(1, 2, 3, 4))
    assert (found.video, found.output) == (Path("clip.mp4"), Path("out"))
    assert (found.settings.stop, found.settings.fast) == (7, False)
    assert found.settings.intrinsics == (1, 2, 3, 4)
