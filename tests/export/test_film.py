import dataclasses

import numpy as np
import pytest

from geo4d.export.film import clipping_range, film_back, save_plate, time_line


@pytest.mark.parametrize("rate", [16, 24, 24000 / 1001, 25, 30000 / 1001, 59.94005994, 120, 12.5])
def test_the_rate_of_the_source(rate) -> None:
    line = time_line(2 + np.arange(100) / rate, 1)
    assert line.fps == pytest.approx(rate, rel=1e-9 if rate != 12.5 else 1e-6)
    assert line.is_regular
    assert (line.numbers[0], line.numbers[-1]) == (1, 100)


@pytest.mark.parametrize("rate", [16, 24, 24000 / 1001, 25, 30000 / 1001])
def test_times_in_whole_milliseconds(rate) -> None:
    line = time_line(np.round(np.arange(200) / rate, 3), 1001)
    assert line.fps == pytest.approx(rate, rel=1e-9)
    assert line.is_regular


def test_a_variable_rate_is_told(caplog) -> None:
    line = time_line(np.array([0.0, 0.04, 0.08, 0.5, 0.54]), 1)
    assert line.fps == pytest.approx(25)
    assert not line.is_regular
    assert "one after the other" in caplog.text
    assert "variable" in line.words()


def test_one_frame_and_numbers_below_zero() -> None:
    assert len(time_line(np.zeros(1), 5).numbers) == 1
    with pytest.raises(ValueError, match="first frame >= 0"):
        time_line(np.zeros(1), -1)


@pytest.mark.parametrize("size", [(360, 640), (640, 360)])
def test_film_back(size) -> None:
    intrinsics = np.array([[[500.0, 0, 0.25 * size[1]], [0, 500, 0.75 * size[0]], [0, 0, 1]]])
    back = film_back(intrinsics, size)
    assert max(back.width[0], back.height[0]) == pytest.approx(36)
    assert back.focal[0] == pytest.approx(36 * 500 / 640)
    assert back.width[0] / back.height[0] == pytest.approx(size[1] / size[0])
    assert (back.shift_x[0], back.shift_y[0]) == pytest.approx((0.25 * back.width[0], 0.25 * back.height[0]))
    assert not back.is_centred
    assert back.fov_y[0] == pytest.approx(2 * np.arctan(size[0] / 1000))


def test_clipping_and_plate_without_depth_or_pictures(shot, tmp_path, caplog) -> None:
    result = shot()
    finite = result.depth[np.isfinite(result.depth)]
    near, far = clipping_range(result, range(4))
    assert (near, far) == pytest.approx((finite.min() / 2, 2 * finite.max()))
    empty = dataclasses.replace(result, depth=np.full_like(result.depth, np.nan), rgb=None)
    assert clipping_range(empty, range(4)) == (0.1, 1000.0)
    assert save_plate(tmp_path / "plate", empty, range(4), time_line(result.times_s, 1)) == []
    assert "no plate" in caplog.text
    assert not (tmp_path / "plate").exists()
