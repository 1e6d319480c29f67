"""The dict of formats: its list costs nothing. (That every format writes is tested where files and disks are.)"""

import subprocess
import sys

import pytest

from geo4d.export import FORMATS, find_format, format_names


@pytest.mark.parametrize("words", ["export --help", "--help", "reconstruct --help"])
def test_help_needs_no_torch(words: str) -> None:
    code = (
        "import contextlib, sys\n"
        "from geo4d.apps.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main({words.split()!r})\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"torch was imported: {done.stderr[-500:]}"
    assert "geo4d" in done.stdout


def test_an_unknown_format_is_answered_with_the_known_ones() -> None:
    assert format_names()[: len(FORMATS)] == list(FORMATS)
    with pytest.raises(ValueError, match="expected one of npz, exr, png"):
        find_format("fbx")
