"""Options of ``geo4d reconstruct``."""

import pytest

from geo4d.apps.cli import USAGE_ERROR, main
from geo4d.apps.commands.reconstruct import parse_options
from geo4d.errors import InputError


def test_model_options_are_json_or_text() -> None:
    texts = ("sky_disparity=0.5", "doubt=false", "window-length=8", "decoder_dtype=float16", "note=a=b")
    assert parse_options(texts) == {
        "sky_disparity": 0.5,
        "doubt": False,
        "window_length": 8,
        "decoder_dtype": "float16",
        "note": "a=b",
    }
    assert parse_options(()) == {}


@pytest.mark.parametrize("texts", [("sky_disparity",), ("=3",), ("a=1", "a=2")])
def test_malformed_model_options(texts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="NAME=VALUE with every name once"):
        parse_options(texts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model-option", "sharpness=3"], "sharpness"),
        (["--model-option", "sky_disparity=much"], "right types"),
        (["--model-option", "sky_disparity=-7"], "positive disparity of the sky"),
        (["--wide-windows", "huge"], "dilated"),
    ],
)
def test_wrong_options_are_usage_errors(tmp_path, capsys, arguments: list[str], said: str) -> None:
    clip = tmp_path / "clip"
    clip.mkdir()
    write_picture(clip / "a.png")
    output = tmp_path / "out"
    assert main(["reconstruct", str(clip), "-o", str(output), "--quiet", *arguments]) == USAGE_ERROR
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not output.exists()


def test_missing_video(tmp_path, capsys) -> None:
    code = main(["reconstruct", str(tmp_path / "none.mp4"), "-o", str(tmp_path / "out")])
    assert code == InputError.exit_code
    assert "none.mp4" in capsys.readouterr().err


def write_picture(path) -> None:
    import cv2
    import numpy as np

    assert cv2.imwrite(str(path), np.full((48, 64, 3), 90, np.uint8))
