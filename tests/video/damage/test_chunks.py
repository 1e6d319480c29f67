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
