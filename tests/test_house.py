"""The house rules that a machine can hold, on this checkout and on small trees that break each of them."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks.shape import (
    find_against,
    find_circles,
    find_untested,
    iter_imports,
    measure,
    read_directions,
    read_sources,
)

ROOT = Path(__file__).resolve().parents[1]
TABLE = """
| folder or file | job | may import |
| --- | --- | --- |
| `types.py` | nouns | - |
| `geometry/` | cameras | types |
| `apps/` | shells | all above |
"""


def make_tree(root: Path, files: dict[str, str], table: str = TABLE) -> Path:
    (root / "CONTRIBUTING.md").write_text(table)
    (root / "tests").mkdir()
    for name, text in {"__init__.py": "", "types.py": "X = 1\n", **files}.items():
        file = root / "geo4d" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture(scope="module")
def house():
    return measure(ROOT)


def test_every_import_follows_the_table_of_contributing(house):
    assert house[1]["imports against the declared direction"] == []


def test_every_room_has_a_row():
    rooms = {s.room for s in read_sources(ROOT)} - {"", "__main__"}
    assert rooms == set(read_directions(ROOT))


def test_no_modules_import_each_other(house):
    assert house[1]["import circles"] == []


def test_the_root_is_small_and_no_file_is_large(house):
    figures, behind = house
    assert figures["files at the root of the package"] <= 6, behind["files at the root of the package"]
    assert figures["largest file"] <= 600, behind["files over 450 lines"]
    assert figures["files over 450 lines"] <= 5, behind["files over 450 lines"]


def test_an_import_upwards_is_found_inside_a_function_too(tmp_path):
    root = make_tree(
        tmp_path,
        {
            "geometry/fit.py": "from geo4d.types import X\n\n\ndef f():\n    from geo4d import apps\n",
            "apps/__init__.py": "import geo4d.geometry.fit\n",
        },
    )
    assert find_against(read_sources(root), read_directions(root)) == [
        "geo4d/geometry/fit.py:5 imports geo4d.apps"
    ]


def test_imports_that_never_run_do_not_count(tmp_path):
    text = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from geo4d.apps import shell\n"
    root = make_tree(tmp_path, {"geometry/fit.py": text, "apps/shell.py": ""})
    assert find_against(read_sources(root), read_directions(root)) == []


def test_only_listed_methods_hand_on_and_only_inside(tmp_path):
    inside = "def f():\n    from geo4d.export.saving import save_with\n    import geo4d.export.other\n"
    files = {"export/saving.py": "import geo4d.types\n", "export/other.py": ""}
    table = TABLE.replace("| `apps/`", "| `export/` | files | types |\n| `apps/`")
    root = make_tree(tmp_path, {**files, "types.py": inside}, table)
    assert find_against(read_sources(root), read_directions(root)) == [
        "geo4d/types.py:3 imports geo4d.export.other"
    ]
    (root / "geo4d/types.py").write_text("import geo4d.export.saving\n")
    assert find_against(read_sources(root), read_directions(root)) == [
        "geo4d/types.py:1 imports geo4d.export.saving"
    ]


def test_a_room_without_a_row_may_import_nothing(tmp_path):
    root = make_tree(tmp_path, {"cellar/box.py": "from geo4d.types import X\n"})
    assert find_against(read_sources(root), read_directions(root)) == [
        "geo4d/cellar/box.py:1 imports geo4d.types"
    ]


def test_a_circle_over_three_modules_is_found_once(tmp_path):
    root = make_tree(
        tmp_path,
        {
            "geometry/a.py": "import geo4d.geometry.b\n",
            "geometry/b.py": "from geo4d.geometry import c\n",
            "geometry/c.py": "def f():\n    from geo4d.geometry.a import x\n",
            "geometry/d.py": "import geo4d.geometry.a\n",
        },
    )
    sources = read_sources(root)
    modules = {s.name for s in sources}
    circles = find_circles({s.name: {m for _, m in iter_imports(s, modules)} for s in sources})
    assert circles == [["geo4d.geometry.a", "geo4d.geometry.b", "geo4d.geometry.c"]]


def test_a_row_that_points_upwards_is_refused(tmp_path):
    root = make_tree(tmp_path, {}, TABLE.replace("| types |", "| types, apps |"))
    with pytest.raises(ValueError, match="apps"):
        read_directions(root)


def test_figures_of_a_known_tree(tmp_path):
    block = "".join(f"    x{i} = {i}\n" for i in range(90))
    start = block[: block.index("    x7 ")]
    root = make_tree(
        tmp_path,
        {
            "geometry/long.py": f'"""Long."""\n\n\ndef f():\n    """Said."""\n{block}\n\ndef g():\n    pass\n',
            "geometry/twin.py": f"def h():\n{start}",
            "geometry/big.py": "x = 1\n" * 451,
        },
    )
    (root / "tests/geometry").mkdir()
    (root / "tests/geometry/test_long.py").write_text("\n\n1\n2\n")
    figures, behind = measure(root)
    assert behind["files over 450 lines"] == ["geo4d/geometry/big.py 451"]
    assert behind["functions over 80 body lines"] == ["geo4d/geometry/long.py:4 f 90"]
    assert figures["share of functions over 60 body lines"] == pytest.approx(1 / 3, abs=1e-4)
    assert behind["modules without a test file"] == ["geo4d/geometry/twin.py"]
    assert {name for name in behind["public names without a docstring"] if "long" in name} == {
        "geo4d.geometry.long.g"
    }
    assert [d for d in behind["duplicated lines"] if "twin" in d] == [
        f"geo4d/geometry/twin.py:{i}" for i in range(2, 9)
    ]
    code = 1 + 451 + (3 + 90 + 2) + 8  # types, big, long, twin
    assert figures["test lines per code line"] == pytest.approx(2 / code, abs=1e-3)


def test_a_file_in_which_nothing_can_run_needs_no_test(tmp_path):
    root = make_tree(
        tmp_path,
        {
            "geometry/data.py": "X = 1\n\n\nclass A:\n    x: int\n",
            "geometry/protocol.py": 'class A:\n    def f(self):\n        """Said."""\n        ...\n',
            "geometry/method.py": "class A:\n    def f(self):\n        return 1\n",
            "geometry/function.py": "def f():\n    pass\n",
        },
    )
    assert find_untested(root, read_sources(root)) == [
        "geo4d/geometry/function.py",
        "geo4d/geometry/method.py",
    ]


def test_the_life_of_a_video_names_what_is_there():
    text = (ROOT / "docs/life_of_a_video.md").read_text()
    named = re.findall(r"\| `(geo4d/[\w/]+\.py)`: `(\w+)` \|", text)
    assert len(named) > 30
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    assert len(named) == len([row for row in rows if "| where |" not in row])
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert name in defined, f"docs/life_of_a_video.md: {name} is not in {file}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))])
def test_files_that_pages_name_are_there(page):
    path = ROOT / page if page == "CONTRIBUTING.md" else ROOT / "docs" / page
    for name in re.findall(r"`(geo4d/[\w/]+\.py)`", path.read_text()):
        assert (ROOT / name).is_file(), f"{page} names {name}, which is not there"


# One word for one thing: a name that says another word for it, and where another thing bears it rightly.
WORDS = {
    "prior": (
        "evidence, but for GeometryCrafter's per-frame maps; in `cameras` what the textbook calls so",
        (
            "geo4d/cameras/",
            "geo4d/models/geometrycrafter/",
            "geo4d/models/moge/",
            "geo4d/models/per_frame.py",
        ),
        ("geo4d/training/tasks/geometrycrafter/", "geo4d/apps/commands/train.py"),
        # The protocol of GeometryCrafter's prior, and a setting that goes through to `cameras`.
        {"Prior", "focal_prior", "PerFramePrior"},
    ),
    "dynamic": (
        "moving, but for what is stored and public under that name",
        ("geo4d/datasets/readers/", "geo4d/training/dynamicrafter.py"),
        (),
        # Of results and data sets, of published schedules and data sets, of the network that Geo4D began as.
        {
            "dynamic",
            "dynamic_rescale",
            "dynamic_scale",
            "DYNAMIC_SEQUENCES",
            "load_dynamic",
            "from_dynamicrafter",
        },
    ),
    "egomotion": ("cameras", (), (), set()),
    "ego_motion": ("cameras", (), (), set()),
    "segmentation": ("shot, or moving", (), (), set()),
}


def named(tree: ast.Module) -> set[str]:
    """Every identifier that a module defines, takes as an argument, gives or reads."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            found.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


def wrong_words(path: str, tree: ast.Module) -> list[str]:
    """'file: name (the word)' of each identifier with a word that another has replaced."""
    return [
        f"{path}: {name} ({instead})"
        for word, (instead, here, there, kept) in WORDS.items()
        if not path.startswith((*here, *there))
        for name in sorted(named(tree))
        if word in name.lower() and name not in kept
    ]


def test_one_word_for_one_thing():
    assert [line for s in read_sources(ROOT) for line in wrong_words(str(s.path), s.tree)] == []


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("geo4d/run/evidence.py", "def f(prior): pass", "prior"),
        ("geo4d/fusion/dense.py", "x.with_dynamic = 1", "with_dynamic"),
        ("geo4d/models/tiny/pipeline.py", "class MotionPrior: pass", "MotionPrior"),
        ("geo4d/fusion/dense.py", "f(dynamic_steps=3)", "dynamic_steps"),
        ("geo4d/fusion/dense.py", "f(dynamic=3)", None),
        ("geo4d/models/geometrycrafter/pipeline.py", "prior = 1", None),
        ("geo4d/run/evidence.py", "x = 'prior'  # prior", None),
    ],
)
def test_a_word_that_was_replaced_is_found_where_it_comes_back(path, line, found):
    names = [text.split(": ")[1].split(" (")[0] for text in wrong_words(path, ast.parse(line))]
    assert names == ([] if found is None else [found])
