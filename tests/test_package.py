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
