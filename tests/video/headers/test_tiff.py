import numpy as np
import pytest
from PIL import Image

from geo4d.errors import InputError
from geo4d.video.io import Video
from tests.support.images import picture


@pytest.mark.parametrize("big", [False, True])
def test_every_page_of_a_tiff(tmp_path, big):
    pages = [Image.fromarray(np.roll(picture(), 3 * t, axis=1)) for t in range(4)]
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], big_tiff=big, tiffinfo={274: 6})
    video = Video(path, fps=10)
    assert video.num_frames == 4
    assert video.size == (40, 24)
    np.testing.assert_allclose(video.times_s, [0, 0.1, 0.2, 0.3])
    assert any("4 pages; each is a frame" in note for note in video.notes)
    for t in (3, 0, 2, 1, 0):
        expected = np.rot90(np.asarray(pages[t]), -1)
        assert np.array_equal(np.rint(video.read([t])[0].numpy() * 255), expected)


def test_pages_of_another_size_end_the_readable_part(tmp_path):
    pages = [Image.fromarray(picture()), Image.fromarray(picture(12, 12))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"1 of 2 frames readable.*page 2 is 12 x 12"):
        Video(tmp_path / "a.tif")
    assert Video(tmp_path / "a.tif", allow_partial=True).num_frames == 1
