import subprocess
import sys

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.images import save_image
from geo4d.formats.movies import save_movie
from geo4d.video.outset import outset


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    save_movie(path, (np.full((48, 64, 3), 40 * t, np.uint8) for t in range(4)), 24.0)
    return path


def test_a_video_is_named_with_its_size(clip) -> None:
    assert outset(clip).startswith("clip.mp4: mp4, 64x48, ")


def test_pictures_folders_and_what_is_not_there(tmp_path) -> None:
    save_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert outset(tmp_path / "a.png").startswith("a.png: a picture")
    assert outset(tmp_path) == f"{tmp_path.name}: a folder"
    assert outset(tmp_path / "none.mp4") == "none.mp4"  # said in full when it is opened


def test_what_is_no_video_is_an_error_at_once(tmp_path) -> None:
    (tmp_path / "a.mp4").write_text("no video at all, only words")
    with pytest.raises(InputError, match="not a video file"):
        outset(tmp_path / "a.mp4")


@pytest.mark.parametrize("length", [40, 200, 600])
def test_a_file_that_ends_early_is_named_all_the_same(clip, length: int) -> None:
    clip.write_bytes(clip.read_bytes()[:length])
    assert outset(clip).startswith("clip.mp4: mp4, ")


def test_the_command_says_it_before_torch_is_loaded(clip) -> None:
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'torch':\n"
        "            raise ImportError('torch is loaded')\n"
        "sys.meta_path.insert(0, NoTorch)\n"
        "from geo4d.apps.cli import main\n"
        f"sys.exit(main(['reconstruct', {str(clip)!r}, '-o', {str(clip.parent / 'out')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    first, second = done.stderr.splitlines()[:2]
    assert first.startswith("reading clip.mp4: mp4, 64x48")
    assert "torch is loaded" in second
    assert done.returncode != 0
