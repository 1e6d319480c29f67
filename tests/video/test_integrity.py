"""Damage in every container: what is cut or zeroed must be told, what is whole must not be."""

import struct

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.video.containers import VideoFile
from geo4d.video.integrity import find_damage
from tests.support.clips import CLIPS, LENGTH, clip, outcome
from tests.video.clips import encode, pictures


@pytest.mark.parametrize("kind", CLIPS)
def test_a_whole_file_is_not_called_damaged(tmp_path, kind):
    frames, damage = outcome(clip(tmp_path, kind))
    assert damage is None
    assert frames == LENGTH


@pytest.mark.parametrize("kind", CLIPS)
def test_a_cut_is_told(tmp_path, kind):
    path = clip(tmp_path, kind)
    data = path.read_bytes()
    for k in range(1, 10):
        length = len(data) * k // 10 + k % 3
        path.write_bytes(data[: length + (kind == "ts" and length % 188 == 0)])
        frames, damage = outcome(path)
        assert damage, f"{length} of {len(data)} bytes give {frames} frames without a word"
        assert frames < LENGTH or damage


@pytest.mark.parametrize(
    "kind", [kind for kind in CLIPS if kind != "wmv"]
)  # no check sum, no counter of pictures
def test_zeroed_bytes_never_lose_a_frame_in_silence(tmp_path, kind):
    path = clip(tmp_path, kind)
    data = path.read_bytes()
    told = 0
    for seed in range(12):
        changed = bytearray(data)
        start = int(np.random.default_rng(seed).integers(0, len(data) - 64))
        changed[start : start + 64] = bytes(64)
        path.write_bytes(changed)
        frames, damage = outcome(path)
        assert damage or frames >= LENGTH, f"64 bytes at {start}: {frames} frames, no word"
        told += damage is not None
    assert told


def test_readable_frames_before_the_damage_are_the_right_ones(tmp_path):
    path = clip(tmp_path, "mkv")
    whole = VideoFile(path)
    expected = [whole.read(t) for t in range(LENGTH)]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    cut = VideoFile(path)
    assert cut.table.damage
    assert LENGTH // 2 < cut.num_frames < LENGTH
    for t in (cut.num_frames - 1, 0, cut.num_frames // 2):
        assert np.array_equal(cut.read(t), expected[t])


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4", "clip.avi"])
def test_a_size_beyond_the_limit_is_named(tmp_path, name, monkeypatch):
    path = encode(tmp_path / name, pictures(2, 64, 96), codec="ffv1", pix_fmt="bgr0")
    monkeypatch.setattr("geo4d.video.containers.MAX_PIXELS", 64 * 90)
    with pytest.raises(InputError, match="96 x 64 pixels; the limit is"):
        VideoFile(path)


def test_broken_numbers_in_a_header_are_damage_not_a_crash(tmp_path):
    path = tmp_path / "clip.y4m"
    path.write_bytes(b"YUV4MPEG2 Wx H16 F25:1\nFRAME\n" + bytes(100))
    assert find_damage(path, "yuv4mpegpipe").text == "its header is damaged"
    short = tmp_path / "short.avi"
    short.write_bytes(b"RIFF" + struct.pack("<I", 100) + b"AVI ")
    assert "early" in find_damage(short, "avi").text
