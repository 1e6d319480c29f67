import cv2
import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.video.headers.sized import bmp_page, check_bmp, check_pnm, check_webp, pnm_page, webp_page


def encoded(suffix: str, *options: int, channels: int = 3, dtype=np.uint8, shape=(21, 34)) -> bytes:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*shape, channels), dtype)
    return cv2.imencode(suffix, values, options)[1].tobytes()


@pytest.mark.parametrize("quality", [80, 101])  # lossy, and lossless
def test_webp(quality: int) -> None:
    data = encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, quality)
    assert data[12:16] == (b"VP8 " if quality == 80 else b"VP8L")
    assert webp_page(data).stored == (21, 34)
    check_webp(data)
    with pytest.raises(InputError, match="cut"):
        check_webp(data[:-4])


def test_extended_webp_holds_its_orientation() -> None:
    tiff = b"II" + bytes([42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0])
    chunks = (
        b"VP8X"
        + (10).to_bytes(4, "little")
        + bytes(4)
        + (33).to_bytes(3, "little")
        + (20).to_bytes(3, "little")
    )
    chunks += b"ODD " + (3).to_bytes(4, "little") + b"abc\0"  # chunks of odd length are padded
    chunks += b"EXIF" + len(tiff).to_bytes(4, "little") + tiff
    page = webp_page(b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks)
    assert page.stored == (21, 34)
    assert page.orientation == 8


def test_an_unknown_webp_coding_has_no_size() -> None:
    with pytest.raises(ValueError, match="no size"):
        webp_page(b"RIFF\0\0\0\0WEBPWHAT" + bytes(40))


def test_bmp_upright_and_bottom_up() -> None:
    data = encoded(".bmp")
    assert bmp_page(data).stored == (21, 34)
    turned = bytearray(data)
    turned[22:26] = (-21).to_bytes(4, "little", signed=True)
    assert bmp_page(bytes(turned)).stored == (21, 34)
    check_bmp(data)
    with pytest.raises(InputError, match="cut"):
        check_bmp(data[:-1])


def test_rows_of_a_bmp_are_padded_to_four_bytes() -> None:
    data = encoded(".bmp", shape=(5, 3))  # 9 bytes a row, 12 in the file
    check_bmp(data)
    with pytest.raises(InputError):
        check_bmp(data[: 54 + 5 * 9 + 1])


@pytest.mark.parametrize(("suffix", "channels"), [(".ppm", 3), (".pgm", 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pnm(suffix: str, channels: int, dtype) -> None:
    data = encoded(suffix, channels=channels, dtype=dtype)
    page = pnm_page(data)
    assert page.stored == (21, 34)
    assert page.deep == (dtype is np.uint16)
    check_pnm(data)
    with pytest.raises(InputError, match="cut"):
        check_pnm(data[:-1])


def test_pnm_as_text_with_comments() -> None:
    data = b"P3 # made by hand\n2 # wide\n1\n255\n1 2 3  4 5 6\n"
    assert pnm_page(data).stored == (1, 2)
    check_pnm(data)
    with pytest.raises(InputError):
        check_pnm(b"P3\n2 1\n255\n1 2 3 4 5\n")
    with pytest.raises(ValueError, match="no size"):
        pnm_page(b"P3\nwide high\n")
