from geo4d.video.integrity import find_damage
from tests.support.clips import clip


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
