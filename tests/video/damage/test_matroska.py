import av
import pytest

from geo4d.video.integrity import find_damage
from tests.support.clips import clip, outcome


def test_one_flipped_bit_in_a_summed_cluster_is_told(tmp_path):
    path = clip(tmp_path, "mkv")
    data = bytearray(path.read_bytes())
    place = data.find(b"\x1f\x43\xb6\x75") + 4000
    data[place] ^= 1
    path.write_bytes(data)
    assert "check sum of the cluster" in find_damage(path, "matroska").text


def test_declared_matroska_sizes_and_live_recordings(tmp_path):
    path = clip(tmp_path, "mkv")
    data = bytearray(path.read_bytes())
    segment = data.find(b"\x18\x53\x80\x67")
    data[segment + 4 : segment + 12] = b"\x01" + b"\xff" * 7  # a live recording does not know its size
    path.write_bytes(data)
    assert find_damage(path, "matroska") is None
    path.write_bytes(data[: len(data) // 2])
    assert "early" in find_damage(path, "matroska").text


def blocks(path):
    """Where the blocks of a file begin: identifier and a length of two bytes stand before what FFmpeg gives."""
    with av.open(str(path)) as container:
        return [packet.pos - 3 for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("at", "bit", "said"),
    [
        (0, 2, "structure of the file is broken"),  # a number of 200 bytes in its place
        (3, 7, "belongs to no track"),  # 0x81, the first track, in two bytes
        (3, 1, "belongs to no track"),  # the third one
        (6, 1, "says that it holds several pieces"),
        (6, 2, "says that it holds several pieces"),
    ],
)
def test_one_flipped_bit_in_the_head_of_a_block_is_told(tmp_path, at, bit, said):
    path = clip(tmp_path, "webm9")
    data = bytearray(path.read_bytes())
    start = blocks(path)[12]
    assert data[start] == 0xA3  # SimpleBlock: identifier, length in two bytes, track, time in two, flags
    assert data[start + 1] & 0x40
    data[start + at] ^= 1 << bit
    path.write_bytes(data)
    frames, words = outcome(path)
    assert said in words
    assert frames <= 13


def test_a_track_that_may_be_laced_is_not_held_to_one_picture_a_block(tmp_path):
    path = clip(tmp_path, "webm9")
    data = bytearray(path.read_bytes())
    place = data.index(b"\x9c\x81\x00")  # FlagLacing
    data[place + 2] = 1
    data[blocks(path)[12] + 6] ^= 2
    path.write_bytes(data)
    assert find_damage(path, "matroska") is None
