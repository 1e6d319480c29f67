import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.results.source import open_source, source_pictures
from geo4d.video.io import Video
from tests.video.clips import encode, pictures


@pytest.fixture
def film(tmp_path):
    """A clip, and what a manifest says of it."""
    path = encode(tmp_path / "films" / "a.mp4", pictures(6))
    video = Video(path)
    return path, {"path": str(path), "sha256": video.sha256(), "reading": video.reading}


@pytest.fixture(autouse=True)
def folders(tmp_path) -> None:
    (tmp_path / "films").mkdir()


def test_the_source_is_opened_and_gives_its_pictures(film, tmp_path) -> None:
    path, source = film
    video = open_source(source, tmp_path, 6)
    assert video is not None
    assert video.num_frames == 6
    full = source_pictures(source, tmp_path, np.array([4, 1]))
    assert full is not None
    found = full.at((24, 32))
    assert found.shape == (2, 24, 32, 3)
    np.testing.assert_array_equal(found[0], Video(path).read([4], (24, 32))[0])
    np.testing.assert_array_equal(found[1], Video(path).read([1], (24, 32))[0])
    assert full.shape == (2, *Video(path).source_size, 3)
    np.testing.assert_array_equal(full[1], Video(path).read([1])[0])
    np.testing.assert_array_equal(full[0, 3:5], Video(path).read([4])[0, 3:5])


def test_a_source_that_moved_along_with_its_result_is_found(film, tmp_path) -> None:
    path, source = film
    (tmp_path / "b").mkdir()
    path.rename(tmp_path / "b" / "a.mp4")
    assert open_source(source, tmp_path / "b" / "result", 6) is None
    moved = {**source, "relative_path": "../a.mp4"}
    (tmp_path / "b" / "result").mkdir()
    assert open_source(moved, tmp_path / "b" / "result", 6) is not None


def test_a_source_that_is_gone_means_no_colour(film, tmp_path, caplog) -> None:
    path, source = film
    path.unlink()
    assert source_pictures(source, tmp_path, np.arange(2)) is None
    assert "is not there any more; the result has no colour" in caplog.text
    assert open_source({"sha256": "0"}, tmp_path, 1) is None  # an array had no path


def test_another_content_is_refused_on_first_use(film, tmp_path) -> None:
    path, source = film
    encode(path, pictures(6)[::-1])
    with pytest.raises(InputError, match="its content has changed"):
        open_source(source, tmp_path, 6)
    frames = source_pictures(source, tmp_path, np.arange(2))
    assert frames is not None
    with pytest.raises(InputError, match="its content has changed"):
        frames[0]
    with pytest.raises(InputError, match="its content has changed"):
        frames.at((24, 32))[0]
    path.unlink()
    with pytest.raises(InputError, match="not there any more"):
        frames[0]
