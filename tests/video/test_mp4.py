import contextlib
import struct

import pytest

from geo4d.errors import InputError, is_out_of_memory, memory_errors
from geo4d.video.containers import VideoFile
from geo4d.video.integrity import find_damage
from tests.video.clips import encode, pictures


def test_an_mp4_without_its_index_says_what_is_missing(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(10))
    data = path.read_bytes()
    path.write_bytes(data[: data.find(b"moov") - 4])
    with pytest.raises(InputError, match=r"no index of its pictures \(moov\).*not finished.*not complete"):
        VideoFile(path)


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
