from geo4d.video.damage.pictures import _lzw_bytes
from tests.support.clips import LENGTH, clip, outcome


def test_a_gif_without_its_last_byte_has_all_pictures_and_says_so(tmp_path):
    path = clip(tmp_path, "gif")
    path.write_bytes(path.read_bytes()[:-1])
    assert outcome(path) == (LENGTH, "the file ends without its end mark")
    path.write_bytes(path.read_bytes() + b"\x3b" + b"anything behind the end")
    assert outcome(path) == (LENGTH, None)


def test_a_picture_that_swallows_the_next_one_is_told(tmp_path):
    path = clip(tmp_path, "gif")
    data = bytearray(path.read_bytes())
    # The end of a picture's data, the next one's extension (8 bytes), its head and the bits of a pixel (11).
    end = data.index(b"\0\x21\xf9\x04", 1000)
    assert data[end + 9] == 0x2C
    data[end] = 19  # a length that leads to the next picture's first sub-block: the chain holds
    path.write_bytes(data)
    frames, said = outcome(path)
    assert "holds more than its pixels" in said
    assert 0 < frames < LENGTH


def test_short_sub_blocks_alone_are_no_damage(tmp_path):
    path = clip(tmp_path, "gif")
    data = path.read_bytes()
    head = data.index(b"\x2c", 781)
    first = head + 11
    size = data[first]
    assert size == 255
    split = bytes([100]) + data[first + 1 : first + 101] + bytes([155]) + data[first + 101 : first + 256]
    path.write_bytes(data[:first] + split + data[first + 256 :])
    assert outcome(path) == (LENGTH, None)


def test_pixels_of_a_code_are_counted_as_a_decoder_counts_them():
    # Words of 3 bits: clear, 1, 6 (not yet known: "11"), 6, then the end; 1 + 2 + 2 pixels.
    words = [4, 1, 6, 6, 5]
    bits = sum(word << 3 * place for place, word in enumerate(words[:4])) | words[4] << 12
    code = bits.to_bytes(2, "little")
    assert _lzw_bytes(code + b"rest", 2, 5) == 2
    assert _lzw_bytes(code + b"rest", 2, 100) == 2  # the end mark ends it, however many pixels are missing
    assert _lzw_bytes(code[:1], 2, 5) == 1
