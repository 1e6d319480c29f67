import math
import subprocess
import sys

import pytest

from geo4d.config import RunConfig, check_intrinsics, make_config, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("source", "source"), ("model", "model"), ("640x480", (480, 640)), ("1x2", (2, 1))]
)
def test_sizes_are_width_by_height_outside_and_height_first_inside(text, size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "640", "640x", "x480", "0x480", "640x0", "-1x5", "640x480x3", "640 x 480", "big"]
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="source, model or WIDTHxHEIGHT"):
        parse_size(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fov_deg": 0.5}, "field of view"),
        ({"fov_deg": 176.0}, "field of view"),
        ({"fov_deg": 60.0, "intrinsics": (1.0, 1.0, 0.0, 0.0)}, "got both"),
        ({"intrinsics": (0.0, 1.0, 0.0, 0.0)}, "fx, fy > 0"),
        ({"intrinsics": (1.0, 1.0, math.nan, 0.0)}, "all finite"),
        ({"window_stride": 0}, "window stride"),
        ({"num_steps": 0}, "sampling step"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"tries": -1}, "tries"),
        ({"output_size": "huge"}, "output size"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


def test_times_come_from_one_place(tmp_path) -> None:
    with pytest.raises(ValueError, match="fps or a file of times"):
        RunConfig(fps=24.0, times=tmp_path / "times.txt")


def test_bounds_themselves_are_allowed() -> None:
    made = make_config(fov_deg=175.0, seed=2**63 - 1, tries=0, window_stride=1, num_steps=1)
    assert made.fov_deg == 175
    check_intrinsics((1e-3, 1e6, -50.0, 0.0))  # a principal point may lie outside


def test_an_unknown_setting_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown setting sede, widht; expected some of start, stop, .*seed"
    ):
        make_config(sede=1, widht=2, seed=3)


def test_describing_itself_loads_nothing_heavy() -> None:
    code = "import sys, geo4d.config; print([m for m in ('torch', 'numpy', 'cv2', 'av') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("focal", "zoom"), [("auto", None), ("shared", False), ("per_frame", True)])
def test_who_decides_whether_the_lens_zooms(focal, zoom) -> None:
    assert RunConfig().focal == "auto"
    assert RunConfig(focal=focal).zoom is zoom
