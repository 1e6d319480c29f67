import cv2
import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.video.headers.jpeg import check_jpeg, jpeg_page


def jpeg(height: int = 33, width: int = 47, *, progressive: bool = False) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])[1].tobytes()


def with_orientation(data: bytes, value: int, order: str = "big") -> bytes:
    number = lambda n, size: n.to_bytes(size, order)  # noqa: E731
    tiff = (b"MM" if order == "big" else b"II") + number(42, 2) + number(8, 4)
    tiff += (
        number(1, 2)
        + number(0x0112, 2)
        + number(3, 2)
        + number(1, 4)
        + number(value, 2)
        + bytes(2)
        + bytes(4)
    )
    payload = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + data[2:]


@pytest.mark.parametrize("progressive", [False, True])
def test_size_is_rows_then_columns(progressive: bool) -> None:
    page = jpeg_page(jpeg(progressive=progressive))
    assert page.stored == (33, 47)
    assert page.orientation == 1
    assert not page.deep


@pytest.mark.parametrize("order", ["big", "little"])
def test_orientation_in_either_byte_order(order: str) -> None:
    page = jpeg_page(with_orientation(jpeg(), 6, order))
    assert page.orientation == 6
    assert page.size == (47, 33)


def test_filling_bytes_between_segments_are_skipped() -> None:
    data = jpeg()
    assert jpeg_page(data[:2] + b"\xff\xff\xff" + data[2:]).stored == (33, 47)


def test_the_end_mark_is_looked_for_behind_the_scan() -> None:
    data = jpeg()
    check_jpeg(data)
    check_jpeg(data + b"what a camera writes behind it")
    for cut in (data[:-2], data[: len(data) // 2]):
        with pytest.raises(InputError, match="end marker is missing"):
            check_jpeg(cut)
    # A picture within the picture, as cameras store for previews, has an end mark of its own.
    small = jpeg(8, 8)
    nested = data[:2] + b"\xff\xe2" + (len(small) + 2).to_bytes(2, "big") + small + data[2:-2]
    with pytest.raises(InputError):
        check_jpeg(nested)


def test_no_frame_header() -> None:
    with pytest.raises(ValueError, match="no frame header"):
        jpeg_page(b"\xff\xd8\xff\xda\x00\x02")
    with pytest.raises(ValueError, match="no marker"):
        jpeg_page(b"\xff\xd8 no picture at all")
