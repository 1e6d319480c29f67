"""Pictures inside a page: bytes of a JPEG written into the text, so that one file holds everything."""

import base64
import html

import numpy as np
from jaxtyping import UInt8


def jpeg_bytes(pixels: UInt8[np.ndarray, "H W 3"], quality: int = 85) -> bytes:
    """A picture as the bytes of a JPEG file."""
    import cv2

    written, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert written
    return data.tobytes()


def picture_tag(pixels: UInt8[np.ndarray, "H W 3"], alt: str, *, width: int | None = None) -> str:
    """An ``<img>`` that holds its own picture.

    Args:
        alt: what it shows, in words, for those who cannot see it.
        width: shown width in pixels of the page; None shows it as large as it is.
    """
    height, own = pixels.shape[:2]
    width = width or own
    text = base64.b64encode(jpeg_bytes(pixels)).decode()
    return (
        f"<img alt='{html.escape(alt, quote=True)}' width='{width}' height='{round(height * width / own)}' "
        f"src='data:image/jpeg;base64,{text}'>"
    )


def shrunk(maps: np.ndarray, longest: int) -> np.ndarray:
    """Every n-th pixel of [H, W, ...], so that no side is longer than ``longest``; nothing is averaged."""
    step = max(1, -(-max(maps.shape[:2]) // longest))
    return maps[::step, ::step]
