import dataclasses

import numpy as np
import pytest

from geo4d.export import ExportConfig, save
from tests.readers_of_targets import movie


@pytest.mark.parametrize("times", [[0.0, 0.016, 0.7, 0.716], [5.0, 5.04, 5.08, 5.12], [0.0, 1.0, 1.0, 1.5]])
def test_preview_shows_every_frame_at_its_time(tmp_path, scene, times) -> None:
    (path,) = save(dataclasses.replace(scene, times_s=np.array(times)), tmp_path / "p.mp4", "preview")
    shown, duration, pictures = movie.load(path)
    steps = np.diff(times)
    usual = np.median(steps[steps > 0])
    expected = np.cumsum([0, *np.where(steps > 0, steps, usual)])
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    assert duration == pytest.approx(expected[-1] + usual, abs=2e-3)
    assert [picture.shape for picture in pictures] == [(18, 76, 3)] * 4
    (path,) = save(scene, tmp_path / "one.mp4", "preview", ExportConfig(frames=(2,)))
    assert len(movie.load(path)[2]) == 1
