from tests.support.clips import LENGTH, clip, outcome


def test_a_gif_without_its_last_byte_has_all_pictures_and_says_so(tmp_path):
    path = clip(tmp_path, "gif")
    path.write_bytes(path.read_bytes()[:-1])
    assert outcome(path) == (LENGTH, "the file ends without its end mark")
    path.write_bytes(path.read_bytes() + b"\x3b" + b"anything behind the end")
    assert outcome(path) == (LENGTH, None)
