import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_stay_functions_however_they_are_imported():
    run(
        "import geo4d\n"
        "assert callable(geo4d.reconstruct)\n"
        "from geo4d.run.reconstruct import load\n"
        "import geo4d.run.reconstruct\n"
        "assert callable(geo4d.reconstruct) and geo4d.load is load\n"
    )
    run("import geo4d.run.reconstruct, geo4d\nassert callable(geo4d.reconstruct)\n")


def test_import_is_light_and_names_are_listed():
    run(
        "import sys, geo4d\n"
        "assert not {'torch', 'numpy', 'av', 'zarr'} & set(sys.modules)\n"
        "assert 'reconstruct' in dir(geo4d) and geo4d.__version__\n"
    )


def test_the_main_job_loads_no_more_than_it_uses():
    pytest.importorskip("torch")
    run(
        "import sys, geo4d.run.reconstruct\n"
        "heavy = {'scipy', 'matplotlib', 'viser', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


def test_every_file_states_the_same_version():
    import geo4d

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert citation
    assert changes
    assert {project["version"], citation[1], changes[1]} == {geo4d.__version__}


BESIDE = {
    "IPython": "only where a notebook has it loaded",
    "pillow_heif": "in place of pi_heif where somebody has it",
    "websockets": "what viser serves with",
}
"""Modules that are used where they are, or come with a package that is asked for."""


def test_every_module_that_is_imported_belongs_to_a_package_that_is_asked_for():
    # Found by an import without the extras on another Python: pydantic came with FastAPI and was named nowhere.
    import ast
    from importlib.metadata import packages_distributions

    from geo4d.apps.commands.doctor import EXTRAS

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {re.split(r"[^\w.-]", need)[0].lower().replace("_", "-") for need in project["dependencies"]}
    known = {module for modules in EXTRAS.values() for module in modules.values()} | set(BESIDE) | {"geo4d"}
    known |= sys.stdlib_module_names
    packages, strange = packages_distributions(), {}
    for path in sorted((ROOT / "geo4d").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for module in {name.partition(".")[0] for name in names} - known:
                names = (module, *packages.get(module, ()))  # those of compiled modules are not listed
                if not {name.lower().replace("_", "-") for name in names} & core:
                    strange[f"{path.relative_to(ROOT)}:{node.lineno}"] = module
    assert not strange
