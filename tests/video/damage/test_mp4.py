from tests.support.clips import clip, outcome


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
