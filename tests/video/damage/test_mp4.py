import pytest

from geo4d.video.integrity import find_damage
from tests.support.clips import LENGTH, clip, outcome
from tests.video.clips import encode, pictures


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


def whole(tmp_path):
    return encode(tmp_path / "whole.mp4", pictures(LENGTH, 48, 64))


@pytest.mark.parametrize(
    ("mark", "at", "bit", "said"),
    [
        (b"mdhd", 0, 3, "mdia has no mdhd"),
        (b"stsc", 1, 3, "stbl has no stsc"),
        (b"stsz", 16 + 4 * 20 + 2, 7, "behind the end of the file"),
        (b"stsz", 11, 5, "and lists sizes"),
        (b"stsz", 15, 5, "times for 40 pictures or sounds and sizes for 8"),
        (b"stts", 17, 2, "last longer than it says"),
        (b"stsd", 15, 4, "does not fit into its place"),
    ],
)
def test_one_flipped_bit_in_the_index_that_costs_pictures_is_told(tmp_path, mark, at, bit, said):
    path = whole(tmp_path)
    assert outcome(path) == (LENGTH, None)
    data = bytearray(path.read_bytes())
    data[data.index(mark) + at] ^= 1 << bit
    path.write_bytes(data)
    frames, words = outcome(path)
    assert frames < LENGTH
    assert said in words


@pytest.mark.parametrize("option", ["", "+faststart", "+frag_keyframe+empty_moov"])
@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_whole_files_are_whole(tmp_path, codec, option):
    options = {"muxer": {"movflags": option}} if option else {}
    pixels = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    path = encode(tmp_path / "whole.mov", pictures(12, 48, 64), codec=codec, **pixels, **options)
    assert find_damage(path, "mp4") is None
    assert outcome(path) == (12, None)
