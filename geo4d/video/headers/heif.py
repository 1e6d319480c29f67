"""HEIC, read by an extra."""

from typing import Any

import numpy as np

from geo4d.errors import InputError, MissingExtraError
from geo4d.video.headers.page import Page


def _heif() -> Any:
    """The decoder of the extra, or the larger package of the same make where that one is installed."""
    try:
        import pi_heif as package
    except ImportError:
        try:
            import pillow_heif as package
        except ImportError as error:
            raise MissingExtraError("pi-heif", "heic", "reading HEIC pictures") from error
    return package


def heif_pages(data: bytes) -> tuple[Page, ...]:
    """Pages of a HEIC or AVIF file, turned as they are shown; needs the extra ``heif``."""
    return tuple(Page((item.size[1], item.size[0])) for item in _open_heif(data))


def decode_heif(data: bytes | bytearray, index: int) -> np.ndarray:
    """[H, W, C] uint8 of one page.

    Raises:
        InputError: the decoder gave more than 8 bits a channel.
    """
    image = np.array(_open_heif(data)[index])
    if image.dtype != np.uint8:
        raise InputError(f"expected 8 bits a channel from the HEIC decoder, got {image.dtype}")
    return image


def _open_heif(data: bytes | bytearray) -> Any:
    package = _heif()
    try:
        return package.open_heif(data, convert_hdr_to_8bit=True)
    except (ValueError, RuntimeError, EOFError, SyntaxError, OSError) as error:
        raise InputError(f"cannot be decoded as HEIC: {error}") from error
