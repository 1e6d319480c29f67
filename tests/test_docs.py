"""What the pages for newcomers tell to type is understood by the command; and every page stands in the navigation."""

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from geo4d.apps import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("index.md", "install.md", "looking.md")),
         *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]  # fmt: skip


def commands(page: Path) -> list[str]:
    """Lines of its shell blocks that call geo4d, without comments, prompts and what stands before the command."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
    found = [re.search(r"(?:^|/bin/|-m )(geo4d .*)", line) for block in blocks for line in block.splitlines()]
    return [match[1] for match in found if match is not None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_understood(page: Path, monkeypatch) -> None:
    lines = commands(page)
    assert len(lines) >= (1 if page.name == "install.md" else 2)
    for line in lines:
        _, name, *words = shlex.split(line, comments=True)
        module = import_module(f"geo4d.apps.commands.{name}")

        def run(options: object) -> int:
            return 0

        run.__annotations__ = module.run.__annotations__
        monkeypatch.setattr(module, "run", run)
        assert cli.main([name, *words]) == 0, line


def test_every_page_stands_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = re.findall(r": ([\w/-]+\.md)$", text, re.M)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(named) == sorted(pages)


def test_every_extra_stands_in_the_install_page_with_its_sizes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    rows = re.findall(
        r"^\| `([\w-]+)` \| .+ \| (?:under )?\d+ MB \| (?:under )?\d+ MB \|$",
        (ROOT / "docs" / "install.md").read_text("utf-8"),
        re.M,
    )
    assert sorted(rows) == sorted(set(project["optional-dependencies"]) - {"test", "dev"})


def test_the_page_of_peers_names_evidence_that_exists_for_every_feature() -> None:
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "docs/peers.md").read_text("utf-8").splitlines()
        if line[:2] == "| "
    ]
    rows = [[cell.strip() for cell in row] for row in rows if "---" not in row[0] and row[0].strip()]
    assert len(rows) > 30
    for name, ours, evidence, *peers in rows:
        assert len(peers) == 11, name
        if ours.startswith("yes"):
            assert evidence, name
        for path in re.findall(r"`([^`]+)`", evidence):
            assert (ROOT / path).exists(), (name, path)
