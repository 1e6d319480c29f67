import pytest

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
