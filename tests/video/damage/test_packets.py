"""Small files made byte by byte from the containers' own rules, whole and damaged."""

import struct

import pytest

from geo4d.video.damage.packets import check_asf, check_ivf, check_mxf, check_ogg


def ogg_crc(page: bytes) -> int:
    """As RFC 3533 has it: polynomial 0x04c11db7, no reflection, start and end 0, bit by bit."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
            crc &= 0xFFFFFFFF
    return crc


def ogg_page(number: int, payload: bytes, *, last: bool = False, serial: int = 7) -> bytes:
    flags = (2 if number == 0 else 0) | (4 if last else 0)
    head = b"OggS" + struct.pack("<BBQIIIB", 0, flags, number, serial, number, 0, 1) + bytes([len(payload)])
    page = head + payload
    return page[:22] + struct.pack("<I", ogg_crc(page)) + page[26:]


def ogg(count: int = 4) -> list[bytes]:
    return [ogg_page(k, bytes([k]) * 40, last=k == count - 1) for k in range(count)]


def test_a_whole_ogg_file_has_no_damage() -> None:
    assert check_ogg(b"".join(ogg())) is None


def test_ogg_pages_are_summed_counted_and_end() -> None:
    pages = ogg()
    flipped = bytearray(b"".join(pages))
    flipped[len(pages[0]) + 40] ^= 1
    damage = check_ogg(bytes(flipped))
    assert damage is not None
    assert damage.text == f"the check sum of the page at byte {len(pages[0])} is wrong"
    assert damage.position == len(pages[0])
    lost = check_ogg(pages[0] + pages[2] + pages[3])
    assert lost is not None
    assert lost.text.startswith("pages are missing")
    open_end = check_ogg(b"".join(pages[:3]))
    assert open_end is not None
    assert open_end.text == "it ends without its end mark"
    assert open_end.position is None


@pytest.mark.parametrize("cut", [1, 39, 41, 60])
def test_a_cut_ogg_file_says_how_much_is_missing(cut: int) -> None:
    data = b"".join(ogg())
    damage = check_ogg(data[:-cut])
    assert damage is not None
    assert "early" in damage.text
    if cut < 40:
        assert damage.text == f"the file ends {cut} byte{'' if cut == 1 else 's'} early"


def test_two_streams_in_one_ogg_file_count_for_themselves() -> None:
    a, b = ogg(3), [ogg_page(k, b"x", last=k == 2, serial=9) for k in range(3)]
    assert check_ogg(b"".join(page for pair in zip(a, b, strict=True) for page in pair)) is None


def test_nonsense_in_the_middle_of_an_ogg_file_is_told() -> None:
    pages = ogg()
    damage = check_ogg(pages[0] + pages[1] + b"what is this doing here, in the middle of the file?")
    assert damage is not None
    assert damage.text.endswith(f"byte {len(pages[0]) + len(pages[1])}")
    assert damage.position == len(pages[0])  # the page before may be of a picture that goes on


def asf(marks: bytes = b"\x82\x82\x82", length: int = 20) -> bytes:
    header = b"\x30\x26\xb2\x75" + bytes(12) + struct.pack("<Q", 30) + bytes(6)
    packets = b"".join(bytes([mark]) + bytes(length - 1) for mark in marks)
    size = 50 + len(packets)
    data = b"\x36\x26\xb2\x75" + bytes(12) + struct.pack("<Q", size) + bytes(16)
    return header + data + struct.pack("<Q", len(marks)) + bytes(2) + packets


def test_asf_objects_and_the_marks_of_its_packets() -> None:
    assert check_asf(asf()) is None
    damage = check_asf(asf(b"\x82\x00\x82"))
    assert damage is not None
    assert damage.position == 30 + 50 + 20
    cut = check_asf(asf()[:-5])
    assert cut is not None
    assert cut.text == "the file ends 5 bytes early"
    live = bytearray(asf())
    live[30 + 16 : 30 + 24] = bytes(8)
    assert check_asf(bytes(live)) is None  # a live recording states no size
    broken = bytearray(asf())
    broken[16:24] = struct.pack("<Q", 3)
    assert check_asf(bytes(broken)) is not None


def mxf(*sizes: int) -> list[bytes]:
    def length(size: int) -> bytes:
        return bytes([size]) if size < 128 else b"\x83" + size.to_bytes(3, "big")

    return [b"\x06\x0e\x2b\x34" + bytes(12) + length(size) + bytes([7]) * size for size in sizes]


def test_mxf_keys_and_lengths_short_and_long() -> None:
    parts = mxf(10, 300, 5)
    whole = b"".join(parts)
    assert check_mxf(whole) is None
    assert check_mxf(whole + bytes(100)) is None  # padding
    cut = check_mxf(whole[:-3])
    assert cut is not None
    assert cut.text == "the file ends 3 bytes early"
    assert cut.position == len(parts[0]) + len(parts[1])
    wrong = check_mxf(parts[0] + b"\x07" + whole)
    assert wrong is not None
    assert wrong.text.endswith(f"byte {len(parts[0])}")


def ivf(sizes: list[int], declared: int | None = None) -> bytes:
    count = len(sizes) if declared is None else declared
    head = b"DKIF" + struct.pack("<HH4sHHIIII", 0, 32, b"VP80", 16, 16, 30, 1, count, 0)
    return head + b"".join(struct.pack("<IQ", size, k) + bytes(size) for k, size in enumerate(sizes))


def test_ivf_frames_and_how_many_there_should_be() -> None:
    assert check_ivf(ivf([5, 6, 7])) is None
    short = check_ivf(ivf([5, 6, 7], declared=9))
    assert short is not None
    assert short.text == "its header says 9 pictures, 3 are there"
    cut = check_ivf(ivf([5, 6, 7])[:-2])
    assert cut is not None
    assert cut.text == "the file ends 2 bytes early"
    assert cut.position == 32 + 12 + 5 + 12 + 6
    empty = check_ivf(ivf([5, 0, 7]))
    assert empty is not None
    assert empty.position == 32 + 12 + 5
