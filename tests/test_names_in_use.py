"""What stands outside the package and names parts of it: benchmarks, examples and the Python in README and docs.

No test runs all of that, so a name that moved would be found by a reader only.
"""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = [*sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]


def sources() -> Iterator[tuple[str, str]]:
    """(where, Python text)."""
    for path in SCRIPTS:
        yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for path in PROSE:
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.S | re.M)
        ):
            yield f"{path.relative_to(ROOT)}:{number}", block


def imported(text: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every import from the package, inside functions, too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "geo4d":
            yield from ((str(node.module), name.name) for name in node.names)
        elif isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names if name.name.split(".")[0] == "geo4d")


def is_there(module: str, name: str) -> bool:
    try:
        home = import_module(module)
        if not name or hasattr(home, name):
            return True
        import_module(f"{module}.{name}")
    except ModuleNotFoundError as error:
        # An extra that is not installed is no fault: the module itself is there.
        return not (error.name or "").startswith("geo4d")
    return True


@pytest.mark.parametrize(("where", "text"), [pytest.param(*source, id=source[0]) for source in sources()])
def test_every_name_of_the_package_is_there(where: str, text: str) -> None:
    missing = [f"{module}.{name}" for module, name in imported(text) if not is_there(module, name)]
    assert not missing, f"{where} names what is not there: {missing}"
