"""The shape of the package in figures: how large, how deep, who imports whom, what is described and tested.

    python benchmarks/shape.py [ROOT] [--output FILE] [--against FILE] [--list]

ROOT is a checkout, this one by default. Only the sources are read; nothing of the package is imported, so any commit can
be measured (``git worktree add FOLDER COMMIT``). ``--against`` prints an earlier result beside this one, ``--list`` what
is behind the counts. The exit status is 1 when a limit of ``LIMITS`` is passed.

How each figure is counted:

- lines of a file: all of them. Body lines of a function: from its first statement after the docstring to its last line,
  functions inside it included;
- imports: every ``import`` of a module of the package, inside functions too; those under ``TYPE_CHECKING`` are left out,
  they never run, and so are those that ``HANDED_ON`` lists. A circle is a set of modules of which each reaches each. The
  declared direction is the table of ``CONTRIBUTING.md``: a room (a folder or a file at the root)
  may import what its row names;
- public docstrings: of modules, classes, functions and methods whose names, and whose owners' names, begin with no
  underscore. Functions inside functions do not count;
- duplicated lines: lines are stripped; blank lines, comments, docstrings and imports are left out; a run of six that has
  stood anywhere before makes its six lines duplicates. The share is of all lines that were left in;
- test lines per code line: lines of ``tests`` over lines of ``geo4d``, both without blank lines;
- a module has its test file when ``geo4d/a/b.py`` has ``tests/a/test_b.py`` or ``tests/a/test_b_*.py``; files in which
  nothing can run need none: constants, dataclasses without methods, protocols whose methods are ``...``.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "geo4d"
RUN = 6
LIMITS = {
    "files over 450 lines": 5,
    "largest file": 600,
    "functions over 80 body lines": 3,
    "share of functions over 60 body lines": 0.007,
    "import circles": 0,
    "imports against the declared direction": 0,
    "files at the root of the package": 6,
    "share of duplicated lines": 0.005,
}
LEAST = {"share of public docstrings": 0.95, "test lines per code line": 0.5}

HANDED_ON = {"geo4d.types": {"geo4d.export.saving", "geo4d.viewer.summary"}}
"""Methods of the nouns that only hand on, for those who type: ``scene.export(...)`` and what a notebook shows. Their
imports stand inside the method, and count neither against the table nor as a circle; anywhere else they do."""

Functions = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Source:
    """One module of the package.

    Attributes:
        name: dotted; a package's name stands for its ``__init__``.
        path: relative to the root of the checkout.
    """

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder or the file below ``geo4d`` that it is in; '' for ``geo4d/__init__.py``."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""


def read_sources(root: Path) -> list[Source]:
    """All modules of the package below ``root``, sorted by path."""
    sources = []
    for file in sorted((root / PACKAGE).rglob("*.py")):
        path = file.relative_to(root)
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        text = file.read_text()
        sources.append(Source(name, path, text, ast.parse(text)))
    return sources


def read_directions(root: Path) -> dict[str, set[str]]:
    """What each room may import, from the table of ``CONTRIBUTING.md``; rooms in the order of its rows.

    Raises:
        ValueError: there is no such table, or a row names a room that stands in no row above it.
    """
    rows = re.findall(r"^\| (`[^|]+) \| [^|]+ \| ([^|]+) \|$", (root / "CONTRIBUTING.md").read_text(), re.M)
    if not rows:
        raise ValueError("expected in CONTRIBUTING.md a table | `room/` | job | may import |, found none")
    allowed: dict[str, set[str]] = {}
    for named, imports in rows:
        rooms = [n.removesuffix(".py").split("/")[0] for n in re.findall(r"`([^`]+)`", named)]
        words = {w.strip() for w in imports.split(",")} - {"-"}
        unknown = words - set(allowed) - {"all above"}
        if unknown:
            raise ValueError(f"{rooms} may import {sorted(unknown)}, of which no row above it is the home")
        may = set(allowed) if "all above" in words else words
        allowed.update({room: set(may) for room in rooms})
    return allowed


def iter_imports(source: Source, modules: set[str]) -> Iterator[tuple[int, str]]:
    """(line, module of the package) of each import that can run."""
    unread = {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for part in node.body
        for inner in ast.walk(part)
    }
    inside = {
        id(inner) for node in ast.walk(source.tree) if isinstance(node, Functions) for inner in ast.walk(node)
    }
    for node in ast.walk(source.tree):
        if id(node) in unread:
            continue
        handed_on = HANDED_ON.get(source.name, set()) if id(node) in inside else set()
        if isinstance(node, ast.Import):
            named = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{a.name}" for a in node.names]
            named = [name if name in modules else node.module for name in inner]
        else:
            continue
        yield from ((node.lineno, name) for name in dict.fromkeys(named) if name in modules - handed_on)


def find_circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach one another: the strongly connected parts of more than one (or of one with itself)."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        open_ends = list(edges[start])
        while open_ends:
            name = open_ends.pop()
            if name not in seen:
                seen.add(name)
                open_ends.extend(edges.get(name, ()))
        reached[start] = seen
    circles = {
        tuple(sorted({name} | {other for other in seen if name in reached.get(other, ())}))
        for name, seen in reached.items()
        if name in seen
    }
    return [list(circle) for circle in sorted(circles)]


def find_against(sources: list[Source], allowed: Mapping[str, set[str]]) -> list[str]:
    """'file:line imports module' of each import that the table does not allow; a room without a row allows nothing."""
    modules = {s.name for s in sources}
    found = []
    for source in sources:
        if source.room in ("", "__main__"):
            continue
        for line, name in iter_imports(source, modules):
            target = name.split(".")[1] if "." in name else ""
            if target not in ("", source.room) and target not in allowed.get(source.room, ()):
                found.append(f"{source.path}:{line} imports {name}")
    return found


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _public(owner: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, bool]]:
    """(name, has a docstring) of what is public in a module or a class."""
    for node in owner.body:
        if isinstance(node, (*Functions, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{prefix}.{node.name}", ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{prefix}.{node.name}")


def find_public(sources: list[Source]) -> dict[str, bool]:
    """Dotted name of each public module, class, function and method, and whether it has a docstring."""
    found = {}
    for source in sources:
        if any(part.startswith("_") for part in source.name.split(".")):
            continue
        if source.tree.body:
            found[source.name] = ast.get_docstring(source.tree) is not None
        found.update(_public(source.tree, source.name))
    return found


def _code_lines(source: Source) -> list[tuple[int, str]]:
    """(number, stripped text) of the lines that are neither blank, comment, docstring nor import."""
    skipped: set[int] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = ((i, line.strip()) for i, line in enumerate(source.text.splitlines(), 1) if i not in skipped)
    return [(i, line) for i, line in lines if line and not line.startswith("#")]


def find_duplicates(sources: list[Source]) -> tuple[list[str], int]:
    """'file:line' of each duplicated line, and how many lines were compared."""
    seen: set[tuple[str, ...]] = set()
    found: list[str] = []
    total = 0
    for source in sources:
        lines = _code_lines(source)
        total += len(lines)
        duplicated: set[int] = set()
        for i in range(len(lines) - RUN + 1):
            run = lines[i : i + RUN]
            key = tuple(line for _, line in run)
            if key in seen:
                duplicated.update(number for number, _ in run)
            seen.add(key)
        found += [f"{source.path}:{number}" for number in sorted(duplicated)]
    return found, total


def _is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function has nothing but a docstring and ``...``."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return all(
        isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and part.value.value is ...
        for part in body
    )


def find_untested(root: Path, sources: list[Source]) -> list[str]:
    """Files of the package that hold functions or methods with a body and have no test file of their name."""
    found = []
    for source in sources:
        if source.path.stem.startswith("__") or not any(
            isinstance(node, Functions) and not _is_stub(node) for node in ast.walk(source.tree)
        ):
            continue
        folder = root / "tests" / source.path.parent.relative_to(PACKAGE)
        names = (f"test_{source.path.stem}.py", f"test_{source.path.stem}_*.py")
        if not any(file for name in names for file in folder.glob(name)):
            found.append(str(source.path))
    return found


def _full_lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


def measure(root: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Figures of a checkout, and what is behind them."""
    sources = read_sources(root)
    modules = {s.name for s in sources}
    sizes = {str(s.path): len(s.text.splitlines()) for s in sources}
    functions = {
        f"{s.path}:{node.lineno} {node.name}": _body_lines(node)
        for s in sources
        for node in ast.walk(s.tree)
        if isinstance(node, Functions)
    }
    circles = find_circles({s.name: {m for _, m in iter_imports(s, modules)} for s in sources})
    against = find_against(sources, read_directions(root))
    public = find_public(sources)
    duplicates, compared = find_duplicates(sources)
    untested = find_untested(root, sources)
    at_root = [str(s.path) for s in sources if len(s.path.parts) == 2]
    code = sum(_full_lines(s.text) for s in sources)
    tests = sum(_full_lines(f.read_text()) for f in (root / "tests").rglob("*.py"))
    behind = {
        "files over 450 lines": [f"{p} {n}" for p, n in sizes.items() if n > 450],
        "functions over 80 body lines": [f"{f} {n}" for f, n in functions.items() if n > 80],
        "functions over 60 body lines": [f"{f} {n}" for f, n in functions.items() if n > 60],
        "import circles": [" ".join(circle) for circle in circles],
        "imports against the declared direction": against,
        "files at the root of the package": at_root,
        "modules without a test file": untested,
        "public names without a docstring": [name for name, described in public.items() if not described],
        "duplicated lines": duplicates,
    }
    figures: dict[str, float] = {
        "files": len(sources),
        "lines": sum(sizes.values()),
        "files over 450 lines": len(behind["files over 450 lines"]),
        "largest file": max(sizes.values()),
        "functions": len(functions),
        "functions over 80 body lines": len(behind["functions over 80 body lines"]),
        "functions over 60 body lines": len(behind["functions over 60 body lines"]),
        "share of functions over 60 body lines": round(
            len(behind["functions over 60 body lines"]) / len(functions), 4
        ),
        "import circles": len(circles),
        "imports against the declared direction": len(against),
        "files at the root of the package": len(at_root),
        "public names": len(public),
        "share of public docstrings": round(sum(public.values()) / len(public), 4),
        "share of duplicated lines": round(len(duplicates) / compared, 4),
        "test lines per code line": round(tests / code, 3),
        "modules without a test file": len(untested),
    }
    return figures, behind


def passed_limits(figures: Mapping[str, float]) -> list[str]:
    """'figure: value, limit' of each figure on the wrong side of its limit."""
    over = [f"{k}: {figures[k]}, at most {v}" for k, v in LIMITS.items() if figures[k] > v]
    return over + [f"{k}: {figures[k]}, at least {v}" for k, v in LEAST.items() if figures[k] < v]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).resolve().parents[1])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    figures, behind = measure(options.root)
    before: dict[str, Any] = json.loads(options.against.read_text())["figures"] if options.against else {}
    for name, value in figures.items():
        print(f"{name:42}" + (f"{before.get(name, '-'):>10}" if before else "") + f"{value:>10}")
    for name, items in behind.items() if options.list else ():
        print(f"\n{name}", *items, sep="\n  ")
    if options.output is not None:
        options.output.write_text(json.dumps({"figures": figures, "behind": behind}, indent=1) + "\n")
    over = passed_limits(figures)
    print(*(f"passed: {line}" for line in over), sep="\n")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
