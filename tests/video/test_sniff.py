import pytest

from geo4d.errors import InputError
from geo4d.video.io import Video
from geo4d.video.sniff import sniff_container


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, this is a letter\n" * 20, "it is text"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n", "playlist"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "concatenation script"),
        (b"\x00" * 1000, "unknown content"),
        (b"ID3" + b"\x00" * 100, "audio"),
        (b"\x00\x00\x00\x20ftypisom" + b"\x00" * 100, "holds no index"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Video(path)
    assert "\n" not in str(caught.value)


def test_sniffing_accepts_only_containers():
    assert sniff_container(b"\x00\x00\x00\x18ftypmp42") == "mp4"
    assert sniff_container(b"#EXTM3U\n#EXT-X-VERSION:3\n") is None
    assert sniff_container(b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n") is None
    assert sniff_container(b"<?xml version='1.0'?><MPD></MPD>") is None
