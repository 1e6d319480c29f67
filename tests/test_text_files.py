"""Text files are UTF-8 wherever the program runs: on Windows the default is another encoding."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

NOT_FILES = (
    "os.open",
    "av.open",
    "tarfile.open",
    "archive.open",
    "ModelFolder.open",
    "TensorFile.open",
    "webbrowser.open",
)
"""Calls of that name that open no text file."""

READ_TEXT = ("read_text", "write_text", "loadtxt", "genfromtxt", "savetxt")


def without_encoding(source: str) -> Iterator[str]:
    """Calls that read or write text without saying in which encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        if last in READ_TEXT:
            yield f"{node.lineno}: {name}"
        elif last in ("open", "fdopen") and name not in NOT_FILES:
            values = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            words = [
                part.value for value in values for part in ast.walk(value) if isinstance(part, ast.Constant)
            ]
            if not any(
                isinstance(word, str) and set(word) <= set("rwxab+") and "b" in word for word in words
            ):
                yield f"{node.lineno}: {name}"
        elif name.startswith("subprocess.") and any(keyword.arg == "text" for keyword in node.keywords):
            yield f"{node.lineno}: {name}"


def test_every_text_file_states_its_encoding(repository: Path) -> None:
    found = [
        f"{path.relative_to(repository)}:{call}"
        for path in sorted((repository / "geo4d").rglob("*.py"))
        for call in without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("p.read_text()", True),
        ("p.write_text(x, newline='')", True),
        ("p.read_text(encoding='utf-8')", False),
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("p.open()", True),
        ("(a / b).open('a')", True),
        ("open(p, 'rb')", False),
        ("open(p, mode='wb')", False),
        ("os.open(p, os.O_RDWR)", False),
        ("os.fdopen(d, 'w')", True),
        ("np.loadtxt(p)", True),
        ("subprocess.run(c, text=True)", True),
        ("open('rb.txt')", True),
    ],
)
def test_what_the_rule_catches(source: str, caught: bool) -> None:
    assert bool(list(without_encoding(source))) is caught
