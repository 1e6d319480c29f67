"""Hazards of Windows and macOS, simulated: names, encodings, open files, and what only POSIX has."""

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import geo4d
from geo4d.errors import OutputError
from geo4d.export import FORMATS, save
from geo4d.formats.files import all_or_nothing, new_file
from geo4d.results.places import check_name
from geo4d.results.reader import load_result
from tests.support.truth import BoxWorld, TruthPredictor

POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "msvcrt", "winreg"}


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    """A result whose source had every name that is trouble elsewhere."""
    folder = tmp_path_factory.mktemp("made")
    world = BoxWorld((24, 32))
    video = np.stack([(255 * world.rgb(t).numpy()).astype(np.uint8) for t in range(4)])
    model = TruthPredictor(world, length=4, stride=4)
    geo4d.reconstruct(video, folder / "result", model=model, output_size="model", split_shots=False)
    return folder / "result"


def names_below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*")]


def require_portable(names: list[str], parent: Path) -> None:
    """No two that are one file where case does not count, and none that Windows cannot have."""
    twice = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    assert not twice, twice
    for name in names:
        assert len(name) < 120  # of 260 that a whole path may have
        for part in name.split("/"):
            check_name(part, f".{part}.geo4d-run", parent, system="nt")


def test_the_check_of_names_can_fail(tmp_path):
    for names in (["a", "A"], ["x/aux.png"], ["x/a:b"]):
        with pytest.raises((AssertionError, OutputError)):
            require_portable(names, tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_names_in_exports_are_good_everywhere(result, tmp_path, name):
    save(load_result(result), tmp_path / "export", name)
    names = names_below(tmp_path)
    assert names
    require_portable(names, tmp_path)


def test_names_in_results_are_good_everywhere(result):
    require_portable(names_below(result), result)


def test_an_output_that_another_program_has_open_is_kept(tmp_path, monkeypatch):
    """Windows does not rename over an open file: the old one stays, nothing is left beside it, and it is said."""
    (tmp_path / "a.txt").write_text("old")
    usual = Path.replace

    def held(self, target):
        if Path(target).name == "a.txt":
            raise PermissionError(
                13, "The process cannot access the file because it is being used", str(target)
            )
        return usual(self, target)

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(OutputError, match="cannot write"), new_file(tmp_path / "a.txt") as path:
        path.write_text("new")
    replaced = all_or_nothing(tmp_path / "a.txt", 10, overwrite=True)
    with pytest.raises(OutputError, match="cannot write"), replaced as path:
        path.write_text("new")
    assert names_below(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_terminal_and_a_locale_that_are_not_utf8(result, tmp_path):
    """Windows' own encoding in place of UTF-8, for the streams and for files opened without one."""
    environment = {
        **os.environ,
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "cp1252",
        "PYTHONWARNDEFAULTENCODING": "1",
        "PYTHONPATH": str(Path(geo4d.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    target = tmp_path / "Урок № 1 – «кот».html"
    words = [sys.executable, "-W", "error::EncodingWarning:geo4d", "-m", "geo4d"]
    ended = subprocess.run(
        [*words, "report", str(result), "-o", str(target)], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert b"wrote" in ended.stdout
    assert "<html" in target.read_text(encoding="utf-8").lower()
    missing = tmp_path / "кот.mp4"
    ended = subprocess.run(
        [*words, "reconstruct", str(missing), "-o", str(tmp_path / "o")],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1].startswith(b"error: ")


def at_import(tree: ast.Module):
    """Nodes that run when a module is imported."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def not_for_every_system(source: str) -> list[str]:
    """Modules of one system imported with the package, and processes made by what the system prefers."""
    tree = ast.parse(source)
    found = []
    for node in at_import(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: import {name}" for name in names if name in POSIX_ONLY]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        wanted = {"ProcessPoolExecutor": "mp_context", "DataLoader": "multiprocessing_context"}.get(
            name.rpartition(".")[2]
        )
        if (wanted and wanted not in given) or name in ("os.fork", "multiprocessing.Pool", "Pool"):
            found.append(f"{node.lineno}: {name}")
    return found


def test_nothing_of_one_system_only(repository):
    found = [
        f"{path.relative_to(repository)}:{what}"
        for path in sorted((repository / "geo4d").rglob("*.py"))
        for what in not_for_every_system(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import fcntl", True),
        ("if x:\n    from resource import getrusage", True),
        ("class A:\n    import pwd", True),
        ("def f():\n    import fcntl", False),
        ("ProcessPoolExecutor(2)", True),
        ("ProcessPoolExecutor(2, mp_context=get_context('spawn'))", False),
        ("os.fork()", True),
    ],
)
def test_what_the_rule_catches(source, caught):
    assert bool(not_for_every_system(source)) is caught
