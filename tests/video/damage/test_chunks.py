import pytest

from tests.support.clips import LENGTH, clip, outcome


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


def tags(data):
    """Where the tags of an FLV file with pictures begin."""
    places, position = [], 13
    while position < len(data):
        if data[position] == 9:
            places.append(position)
        position += 15 + int.from_bytes(data[position + 1 : position + 4], "big")
    return places


@pytest.mark.parametrize(
    ("at", "bit"),
    [(11, 0), (11, 7), (11, 6), (0, 0), (-4, 0), (-1, 6)],
    ids=["codec", "codec of four letters", "kind of picture", "sound", "size before", "size before, below"],
)
def test_one_flipped_bit_in_the_head_of_a_picture_of_an_flv_is_told(tmp_path, at, bit):
    path = clip(tmp_path, "flv")
    data = bytearray(path.read_bytes())
    data[tags(data)[20] + at] ^= 1 << bit
    path.write_bytes(data)
    frames, damage = outcome(path)
    assert frames <= 20
    assert "broken at byte" in damage


def test_an_flv_of_a_writer_that_never_states_lengths_behind_is_whole(tmp_path):
    path = clip(tmp_path, "flv")
    data = bytearray(path.read_bytes())
    places = [*tags(data), len(data)]
    for place in places[1:]:
        data[place - 4 : place] = (int.from_bytes(data[place - 4 : place], "big") - 11).to_bytes(4, "big")
    path.write_bytes(data)
    assert outcome(path) == (LENGTH, None)
