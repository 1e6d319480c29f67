"""Damage in every container: what is cut or zeroed must be told, what is whole must not be."""

import contextlib
import struct

import numpy as np
import pytest

from geo4d.errors import InputError, is_out_of_memory, memory_errors
from geo4d.video.containers import VideoFile
from geo4d.video.integrity import find_damage
from geo4d.video.lost import PacketTime, first_lost
from tests.video.clips import encode, pictures

FAST = {"deadline": "realtime", "cpu-used": "8"}
CLIPS = {
    "mp4": ("clip.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    "mkv": ("clip.mkv", {}),
    "webm": ("clip.webm", {"codec": "libvpx", "options": FAST}),
    "webm9": ("clip.webm", {"codec": "libvpx-vp9", "options": FAST}),
    "ts": ("clip.ts", {"codec": "mpeg2video"}),
    "flv": ("clip.flv", {"codec": "flv"}),
    "avi": ("clip.avi", {}),
    "avi-mjpeg": ("clip.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "gif": ("clip.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    "mpg": ("clip.mpg", {"codec": "mpeg2video"}),
    "ogg": ("clip.ogg", {"codec": "libvpx", "options": FAST}),
    "ivf": ("clip.ivf", {"codec": "libvpx", "options": FAST}),
    "mxf": ("clip.mxf", {"codec": "mpeg2video"}),
    "wmv": ("clip.wmv", {"codec": "wmv2"}),
}
LENGTH = 40


def clip(tmp_path, kind):
    name, settings = CLIPS[kind]
    return encode(tmp_path / name, pictures(LENGTH, 48, 64), **settings)


def outcome(path):
    """(frames, what is said); a refusal has no frames."""
    try:
        table = VideoFile(path).table
    except InputError as error:
        return 0, str(error)
    return table.num_frames, table.damage


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


def test_a_gif_without_its_last_byte_has_all_pictures_and_says_so(tmp_path):
    path = clip(tmp_path, "gif")
    path.write_bytes(path.read_bytes()[:-1])
    assert outcome(path) == (LENGTH, "the file ends without its end mark")
    path.write_bytes(path.read_bytes() + b"\x3b" + b"anything behind the end")
    assert outcome(path) == (LENGTH, None)


def test_an_flv_cut_between_two_pictures_is_told_by_its_header(tmp_path):
    path = clip(tmp_path, "flv")
    data = path.read_bytes()
    position = 13
    ends = []
    while position < len(data):
        position += 15 + int.from_bytes(data[position + 1 : position + 4], "big")
        ends.append(position)
    path.write_bytes(data[: ends[-12]])
    frames, damage = outcome(path)
    assert frames < LENGTH
    assert "its header says 1.6" in damage


def test_a_fragment_whose_index_is_damaged_is_told(tmp_path):
    path = clip(tmp_path, "mp4")
    data = path.read_bytes()
    second = data.find(b"moof", data.find(b"moof") + 4)
    for offset in (8, 24, 48, 90):
        changed = bytearray(data)
        changed[second + offset : second + offset + 64] = bytes(64)
        path.write_bytes(changed)
        frames, damage = outcome(path)
        assert damage
        assert frames == 12  # the first fragment


def test_one_flipped_bit_in_a_summed_cluster_is_told(tmp_path):
    path = clip(tmp_path, "mkv")
    data = bytearray(path.read_bytes())
    place = data.find(b"\x1f\x43\xb6\x75") + 4000
    data[place] ^= 1
    path.write_bytes(data)
    assert "check sum of the cluster" in find_damage(path, "matroska").text


def without_one_picture(data, which):
    """A transport stream without the packets of one picture, its counters renumbered as if none were missing."""
    packets = [bytearray(data[k : k + 188]) for k in range(0, len(data), 188)]
    kept, picture, counter = [], -1, None
    for packet in packets:
        if (packet[1] & 0x1F) << 8 | packet[2] == 0x100:
            picture += packet[1] >> 6 & 1
            if picture == which:
                continue
            if counter is None:
                counter = packet[3] & 15
            packet[3] = packet[3] & 0xF0 | counter & 15
            counter += 1
        kept.append(packet)
    return b"".join(kept)


def test_a_picture_missing_from_a_transport_stream_is_told_by_the_times(tmp_path):
    path = clip(tmp_path, "ts")
    data = path.read_bytes()
    assert len(without_one_picture(data, -5)) == len(data)
    path.write_bytes(without_one_picture(data, 20))
    assert find_damage(path, "mpegts", 0x100) is None
    _, damage = outcome(path)
    assert "about 1 pictures are missing" in damage or "picture 20" in damage


def test_a_lost_transport_packet_is_told(tmp_path):
    path = clip(tmp_path, "ts")
    data = path.read_bytes()
    at = len(data) // 188 // 2 * 188
    path.write_bytes(data[:at] + data[at + 188 :])
    frames, damage = outcome(path)
    assert "packets are missing" in damage
    assert 0 < frames < LENGTH


def test_only_a_hole_in_the_times_makes_a_packet_without_a_picture_a_lost_one():
    def packets(*times, discarded=()):
        return [PacketTime(t, t, t in discarded) for t in times]

    every = list(range(0, 100, 10))
    assert first_lost(every, packets(*every), at_end=True) is None
    assert first_lost(every, packets(*every, 35), at_end=True) is None  # hidden reference frame, second field
    holed = [t for t in every if t not in (40, 70)]
    assert first_lost(holed, packets(*every), at_end=True) == 4
    assert (
        first_lost(holed, packets(*holed), at_end=True) is None
    )  # variable rate: nobody had a picture there
    assert first_lost(holed, packets(*every, discarded=(40,)), at_end=True) == 6
    assert first_lost(every[:-1], packets(*every), at_end=True) == 9
    assert first_lost(every[:-1], packets(*every), at_end=False) is None
    assert first_lost(every, packets(-20, -10, *every), at_end=True) is None  # before the first key frame
    assert first_lost([10, None, 30], packets(*every), at_end=True) is None


def test_declared_matroska_sizes_and_live_recordings(tmp_path):
    path = clip(tmp_path, "mkv")
    data = bytearray(path.read_bytes())
    segment = data.find(b"\x18\x53\x80\x67")
    data[segment + 4 : segment + 12] = b"\x01" + b"\xff" * 7  # a live recording does not know its size
    path.write_bytes(data)
    assert find_damage(path, "matroska") is None
    path.write_bytes(data[: len(data) // 2])
    assert "early" in find_damage(path, "matroska").text


def test_an_mp4_without_its_index_says_what_is_missing(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(10))
    data = path.read_bytes()
    path.write_bytes(data[: data.find(b"moov") - 4])
    with pytest.raises(InputError, match=r"no index of its pictures \(moov\).*not finished.*not complete"):
        VideoFile(path)


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


@pytest.mark.parametrize("name", ["stts", "ctts", "stsc", "stco", "stss", "stsz"])
@pytest.mark.parametrize("count", [0x0FFFFFFF, 0xFFFFFFFF])
def test_an_index_that_promises_too_much_is_damage_and_not_want_of_memory(tmp_path, name, count):
    path = encode(tmp_path / "clip.mp4", pictures(8), options={"bf": "2"})
    data = bytearray(path.read_bytes())
    assert find_damage(path, "mp4") is None
    at = data.index(name.encode()) + (12 if name == "stsz" else 8)
    if name == "stsz":
        assert data[at - 4 : at] == bytes(4), "one size for all: the count promises nothing"
    struct.pack_into(">I", data, at, count)
    path.write_bytes(data)
    assert f"{name} promises {count} entries" in find_damage(path, "mp4").text
    with contextlib.suppress(InputError), memory_errors("reading", "less"):  # refused, or read with a word
        said = VideoFile(path).table.damage
        assert said is None or not is_out_of_memory(RuntimeError(said))
