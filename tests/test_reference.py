"""docs/reference: what it shows exists, every public name is shown, and its examples come out as they say."""

import doctest
import re
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import geo4d

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
SHOWN = [name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)]
WITH_EXAMPLES = [page for page in PAGES if ">>>" in page.read_text("utf-8")]


def find(name: str) -> Any:
    """What a dotted name stands for: a module, or something in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("geo4d"):
                raise
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def members(shown: Any) -> list[Any]:
    """What a reader sees: of a module, its own public functions and classes."""
    if not isinstance(shown, ModuleType):
        return [shown]
    own = [value for key, value in vars(shown).items() if not key.startswith("_") and callable(value)]
    return [value for value in own if getattr(value, "__module__", "") == shown.__name__]


def examples() -> list[Any]:
    """(name, the examples of its docstring) of all that the reference shows and that has some."""
    found: dict[str, doctest.DocTest] = {}
    for shown in dict.fromkeys(SHOWN):
        for thing in members(find(shown)):
            if not isinstance(thing, type) and not callable(thing):
                continue
            place = vars(import_module(thing.__module__))
            name = f"{thing.__module__}.{thing.__qualname__}"
            for test in doctest.DocTestFinder().find(thing, name, module=False, globs=dict(place)):  # type: ignore[arg-type]
                if test.examples:
                    found[test.name] = test
    return [pytest.param(test, id=name) for name, test in found.items()]


def failures(test: doctest.DocTest) -> str:
    """What the examples give where it is not what they say."""
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


def test_every_public_name_is_shown() -> None:
    missing = {f"geo4d.{name}" for name in geo4d.__all__} - set(SHOWN)
    assert not missing, f"docs/reference does not show {missing}"


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_exists_and_says_what_it_is(name: str) -> None:
    shown = find(name)
    assert name == "geo4d.__version__" or shown.__doc__


def test_nothing_is_shown_twice() -> None:
    assert len(SHOWN) == len(set(SHOWN))


@pytest.mark.parametrize("test", examples())
def test_examples_of_docstrings(test: doctest.DocTest) -> None:
    assert not failures(test), failures(test)


def test_there_are_examples_where_they_help() -> None:
    names = {param.id for param in examples()}
    assert len(names) >= 20
    assert {"geo4d.types.Reconstruction", "geo4d.video.io.Video", "geo4d.geometry.cameras.project"} <= names


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_examples_of_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "clip.mp4", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(page.read_text("utf-8"), {}, page.stem, str(page), 0)
    assert len(test.examples) >= 5
    assert not (said := failures(test)), said


def test_a_wrong_example_is_found() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert "Expected:\n    3\nGot:\n    2" in failures(test)
