"""Containers of every kind: the right frames, at the right times, with every PyAV that the project allows."""

import struct
import sys

import av
import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.video.containers import VideoFile, _text_options
from tests.video.clips import encode, pictures


def frames_of(path):
    video = VideoFile(path)
    return np.stack([video.read(t) for t in range(video.num_frames)])


def test_metadata_that_are_not_utf8_are_no_obstacle(tmp_path):
    for name in ("clip.mp4", "clip.mkv", "clip.avi"):
        path = encode(tmp_path / name, pictures(3), metadata={"title": "TITLETITLE"})
        data = path.read_bytes()
        assert b"TITLETITLE" in data
        path.write_bytes(data.replace(b"TITLETITLE", b"\xe9t\xe9\xff\xfeTITL\xc3"))
        assert VideoFile(path).num_frames == 3


def test_the_argument_that_pyav_19_dropped_is_given_to_older_ones_only():
    assert _text_options("17.1.0") == _text_options("18.1.0") == {"metadata_errors": "replace"}
    assert _text_options("19.0.2") == _text_options("20.1") == {}


def test_a_variable_rate_mp4_keeps_its_times(tmp_path):
    times = np.cumsum([0, 17, 17, 16, 670, 17, 17, 16, 670, 17, 17]).tolist()
    path = encode(tmp_path / "clip.mp4", pictures(len(times)), times_ms=times)
    table = VideoFile(path).table
    assert table.damage is None
    np.testing.assert_allclose(table.times_s, np.array(times) / 1000, atol=1e-3)


def test_an_edit_list_cuts_without_being_damage(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(60), gop=60, options={"bf": "2"})
    whole = frames_of(path)
    data = bytearray(path.read_bytes())
    at = data.find(b"elst") + 12
    duration, start = struct.unpack_from(">II", data, at)
    scale = struct.unpack_from(">I", data, data.find(b"mdhd") + 16)[0]
    assert start < scale
    struct.pack_into(">II", data, at, duration * 24 // 60, start + scale * 10 // 25)
    path.write_bytes(data)
    video = VideoFile(path)
    assert video.table.damage is None
    assert video.table.expected == 60
    assert abs(video.num_frames - 24) <= 1
    assert video.table.times_s[0] == pytest.approx(0, abs=1e-3)
    assert np.array_equal(video.read(5), whole[15])
    assert np.array_equal(video.read(20), whole[30])


def test_frames_that_an_avi_recorder_dropped_leave_gaps_and_are_no_damage(tmp_path):
    times = [40 * t for t in range(24) if t not in (5, 11, 12)]
    path = encode(tmp_path / "clip.avi", pictures(21), codec="mjpeg", pix_fmt="yuvj420p", times_ms=times)
    table = VideoFile(path).table
    assert table.damage is None
    assert table.num_frames == 21
    np.testing.assert_allclose(table.times_s, np.array(times) / 1000, atol=0.021)


def test_a_gif_of_zero_delays_and_unchanged_pixels(tmp_path):
    frames = np.zeros((12, 48, 64, 3), np.uint8)
    for t in range(12):
        frames[t, 10:20, 4 * t : 4 * t + 8] = (255, 0, 0)
        frames[t, 30:40, 20:30] = (0, 255, 0)
    path = encode(tmp_path / "clip.gif", frames, "gif", pix_fmt="rgb8", options={"gifflags": "+transdiff"})
    plain = frames_of(path)
    data = bytearray(path.read_bytes())
    place = data.find(b"\x21\xf9\x04")
    while place > 0:
        data[place + 4 : place + 6] = b"\0\0"
        place = data.find(b"\x21\xf9\x04", place + 8)
    path.write_bytes(data)
    video = VideoFile(path)
    assert video.table.damage is None
    assert np.abs(plain.astype(int) - frames).mean() < 1  # 256 colours
    assert np.array_equal(frames_of(path), plain)
    np.testing.assert_allclose(video.table.times_s, np.arange(12) / 10, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not allow")
def test_names_in_any_script(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(4))
    for name in (
        "Урок № 1 – «кот» 🐈 ñ.mp4",
        "a 'b' \"c\".mp4",
        b"clip_\xe9t\xe9.mp4".decode(errors="surrogateescape"),
    ):
        other = tmp_path / name
        other.write_bytes(path.read_bytes())
        assert VideoFile(other).num_frames == 4


def test_a_picture_that_turns_in_the_middle_ends_the_readable_part(tmp_path):
    small, large = pictures(10, 48, 64), pictures(10, 64, 48)
    a = encode(tmp_path / "a.ts", small, "mpeg2video").read_bytes()
    b = encode(tmp_path / "b.ts", large, "mpeg2video").read_bytes()
    (tmp_path / "c.ts").write_bytes(a + b)
    table = VideoFile(tmp_path / "c.ts").table
    assert table.damage
    assert 0 < table.num_frames <= 10


def test_a_frame_outside_is_refused(tmp_path):
    video = VideoFile(encode(tmp_path / "clip.mp4", pictures(3)))
    with pytest.raises(IndexError):
        video.read(3)
    (tmp_path / "clip.mp4").write_bytes(b"\0" * 100)
    video.close()
    with pytest.raises(InputError, match=r"cannot be opened|holds no index"):
        video.read(0)


@pytest.mark.parametrize("opening", [True, False])
def test_where_no_thread_can_start_it_is_decoded_without(tmp_path, monkeypatch, opening):
    """FFmpeg says so with EAGAIN, "resource temporarily unavailable"; it is the machine's fault, not the file's."""
    path = encode(tmp_path / "clip.mp4", pictures(6))
    whole = frames_of(path)
    usual = VideoFile._whole

    def no_room(self, packet):
        if refuse(self):
            raise av.error.BlockingIOError(11, "Resource temporarily unavailable", "avcodec_open2")
        return usual(self, packet)

    video = None if opening else VideoFile(path)
    monkeypatch.setattr(VideoFile, "_whole", no_room)
    refuse = lambda self: self._threads == "AUTO"  # noqa: E731
    video = video or VideoFile(path)
    assert video.table.damage is None
    assert video.table.num_frames == 6
    np.testing.assert_array_equal([video.read(t) for t in range(6)], whole)
    refuse = lambda self: True  # noqa: E731
    with pytest.raises(MemoryError, match="no room"):
        video.read(0)
    with pytest.raises(MemoryError, match="no room"):
        VideoFile(path)
