import base64
import sys
import zlib

import numpy as np
import pytest

from geo4d.errors import MissingExtraError
from geo4d.video.io import Video

HEIC = (
    "eNpjYGCQSSupLMhIzUxmAILczDRDEDs3MzGNgYGxNze1JJEBAhQzUnKKoGyGgszkEgY0YJKZkw82xMWBgYmBEcRi3AihgWArUAwImNLg"
    "IipAbJGZmZcG5oFkRYGcVLAyoJqMsmRDBiRBRpAS14pMsHK+gsySXAaoSoYzmQVFBUB6bWZBcj6QrgDqdWZkBglNACuS+8Dw5++PHwwM"
    "/MwJQB0SDow8jP//gxQwg1Qwg5DcLiaHRKCkthMjI5rMAoNG1mmvPDXX5TFJ8XCAhE6ACA6HJKB6dhfGg0UblByA1ohkFhekQn2XAMQg"
    "MYGCzIpMkAAzBwdQKwNnZlF+CdBYBvHMglxY2DIyMLI0MjG3AJlSmUWpaVBhvuSU4mRwWIJ8+TA3JREU6Bs1GNdzPngYblka///vJPn/"
    "/3l/n6h7c0vW0WxeXW00+z9l7/9/Hi10ePLdknebZfTmrf4tfTNO3vG3MdgxszCj89cWtvXro54d3Ztm+5/d/f/HyCcB2hJxebb7VNb9"
    "sVg4QWoBlw3HY6+TW6sDBJfObLQN5lV/+7n3v22uzY/39id42a12Ojhu9lXtt3qw8o4eN4fwvXLFyHde7PG+xyweL7/xypN5xQyD14L+"
    "z5tiC6dZ7Vvzvvv/x99/gI5mg8Scry+DFpDHwcDIKAQKXKDH2CB+BQBkmqTw"
)
"""96 x 64, red above, green and blue below; its rotation property turns it right by 90 degrees."""


HEIC_WITHOUT_ROTATION = (
    "eNpjYGCQSSupLMhIzUxmAILczDRDEDs3MzGNgYGxOTe1JJEBAhQzUnKKoGyGgszkEgY0YJKZkw82xMWBgYmBEcRiXA6hgWArUAwImGLg"
    "IipAbJGZmZcG5oFkRYGcVLAyoJqMsmRDBiRBRpAS14pMsHK+gsySXAaoSoZDmQVFBUB6SWZBcj6QrgDqdWZkBglNACuS+8Dw5++PHwwM"
    "/MwJQB0SDow8jP//gxQwg1Qwg5DcLiaHRKCkthMjI5rMAoNG1mmvPDXX5TFJ8XCAhE6ACA6HJKB6dhfGg0UblByA1ohkFhekQn2XAMQg"
    "MYGCzIpMkAAzBwdQK4NYZkEuLEgZGRiZG5mAdjBIZRalpkFF+ZJTipPBIQjy28PclERQUG/UYFzP+eBhuGVp/P+/k+T//+f9faLuzS1Z"
    "R7N5dbXR7P+Uvf//ebTQ4cl3S95tltGbt/q39M04ecffxmDHzMKMzl9b2Navj3p2dG+a7X929/8fI58EaEvE5dnuU1n3x2LhBKkFXDYc"
    "j71Obq0OEFw6s9E2mFf97efe/7a5Nj/e25/gZbfa6eC42Ve13+rByjt63BzC98oVI995scf7HrN4vPzGK0/mFTMMXgv6P2+KLZxmtW/N"
    "++7/H3//ATqaDRJfvr4MWkAeBwMjoxAoSIEeY4P4FQApxaJv"
)
"""The same with the turn in its EXIF only, which by the standard does not count."""


def test_heic_is_upright_with_the_extra(tmp_path):
    pytest.importorskip("pi_heif")
    path = tmp_path / "a.heic"
    path.write_bytes(zlib.decompress(base64.b64decode(HEIC)))
    video = Video(path)
    assert video.size == (96, 64)
    corners = (video.read([0])[0, [8, 8, -8, -8], [8, -8, 8, -8]] * 255).round()
    # Turned right: what was below is on the left, what was above is on the right.
    expected = np.array([[20, 200, 20], [200, 20, 20], [20, 20, 200], [200, 20, 20]])
    assert np.abs(corners.numpy() - expected).max() < 8
    path.write_bytes(zlib.decompress(base64.b64decode(HEIC_WITHOUT_ROTATION)))
    assert Video(path).size == (64, 96)


def test_heic_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(zlib.decompress(base64.b64decode(HEIC)))
    for source in (tmp_path, tmp_path / "a.heic"):
        with pytest.raises(MissingExtraError, match=r"geo4d\[heic\]"):
            Video(source)
