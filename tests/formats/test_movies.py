import numpy as np
import pytest

from geo4d.formats.movies import save_movie
from tests.readers_of_targets import movie


def pictures(count: int, size=(17, 24)):
    return (np.full((*size, 3), 40 * number % 256, np.uint8) for number in range(count))


def test_constant_rate_and_odd_sizes(tmp_path) -> None:
    assert save_movie(tmp_path / "a.mp4", pictures(6), 29.97) == 6
    times, duration, shown = movie.load(tmp_path / "a.mp4")
    np.testing.assert_allclose(times, np.arange(6) / 29.97, atol=1e-4)
    assert duration == pytest.approx(6 / 29.97, abs=2e-3)
    assert shown[0].shape == (18, 24, 3)
    assert abs(shown[3].mean() - 120) < 6


def test_times_closer_than_the_clock_of_the_file_stay_in_order(tmp_path) -> None:
    save_movie(tmp_path / "a.mp4", pictures(5), times_s=[0, 1e-7, 2e-7, 0.5, 1.0])
    times = movie.load(tmp_path / "a.mp4")[0]
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose(times, [0, 0, 0, 0.5, 1.0], atol=1e-4)


def test_what_cannot_be_written_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="neither or both"):
        save_movie(tmp_path / "a.mp4", pictures(2))
    with pytest.raises(ValueError, match="neither or both"):
        save_movie(tmp_path / "a.mp4", pictures(2), 24, times_s=[0, 1])
    with pytest.raises(ValueError, match="a time for every frame"):
        save_movie(tmp_path / "a.mp4", pictures(3), times_s=[0, 1])
    with pytest.raises(ValueError, match="at least one frame"):
        save_movie(tmp_path / "a.mp4", pictures(0), 24)
    assert list(tmp_path.iterdir()) == []
