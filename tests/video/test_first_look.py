import numpy as np
import pytest

from geo4d.video.containers import VideoFile
from geo4d.video.first_look import LOOK_SIZE, FirstLook
from geo4d.video.io import Video, fit_size
from geo4d.video.revisits import FrameLooks
from tests.support.shots import find_shots
from tests.video.clips import encode, pictures


def two_shots(num_frames=24, height=96, width=160):
    frames = pictures(num_frames, height, width)
    frames[num_frames // 2 :] = 255 - frames[num_frames // 2 :, :, ::-1] // 3
    return frames


def seen_later(clip):
    """Shots and looks from frames that are read after the file was opened."""
    frames = list(clip.frames(fit_size(clip.size, LOOK_SIZE)))
    looks = FrameLooks()
    for frame in frames:
        looks.add(frame)
    return find_shots(frames), looks


@pytest.mark.parametrize(
    "options", [{}, {"start": 3, "stop": 22, "stride": 2}, {"max_size": 60}], ids=["all", "some", "smaller"]
)
def test_opening_a_file_sees_what_reading_it_gives(tmp_path, options):
    path = encode(tmp_path / "clip.mp4", two_shots())
    look = FirstLook(looks=True)
    with Video(path, look=look, **options) as clip:
        shots, looks = seen_later(clip)
        assert look.finder.count == clip.num_frames
        assert len(shots) == 2
        assert look.finder.shots() == shots
        assert len(look.looks._rows) == clip.num_frames
        assert all(a.equal(b) for a, b in zip(look.looks._rows, looks._rows, strict=True))


def test_sources_that_are_not_decoded_when_they_are_opened_show_nothing():
    look = FirstLook()
    with Video(np.zeros((5, 32, 32, 3), np.uint8), look=look):
        assert look.finder.count == 0
    assert look.looks is None


def test_pictures_before_deinterlacing_are_forgotten(tmp_path):
    path = encode(tmp_path / "film.mp4", pictures(8, 64, 64), options={"flags": "+ilme+ildct"})
    look = FirstLook()
    with Video(path, look=look) as clip:
        assert any("interlaced" in note for note in clip.notes)
        assert look.finder.count == 0


def test_a_second_scan_begins_anew(tmp_path, monkeypatch):
    path = encode(tmp_path / "clip.mp4", pictures(10))
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 200] = bytes(200)  # the scan with threads fails and is repeated without
    path.write_bytes(data)
    scans = []
    scan = VideoFile._scan
    monkeypatch.setattr(VideoFile, "_scan", lambda self, stop: scans.append(0) or scan(self, stop))
    look = FirstLook()
    with Video(path, look=look, allow_partial=True) as clip:
        assert len(scans) == 2
        assert look.finder.count in (clip.num_frames, clip.num_frames + 1)


def test_a_picture_that_cannot_be_shown_is_no_fault_of_the_scan(tmp_path, monkeypatch):
    def fails(*arguments):
        raise ValueError("no such colours")

    path = encode(tmp_path / "clip.mp4", pictures(4))
    monkeypatch.setattr("geo4d.video.containers.to_rgb", fails)
    look = FirstLook()
    with Video(path, look=look) as clip:
        assert clip.num_frames == 4
        assert look.finder.count == 0
