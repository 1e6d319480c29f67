"""One picture file: its pages, their sizes as displayed, whether it is whole, and decoding.

Header and decoder follow one rule: OpenCV is never left to turn a picture. The orientation is read by ``headers/``, for
every format alike, the size is that of the turned picture, and what was decoded lying is turned by the same number. HEIC
states its turns as properties of the picture, which its decoder applies in the size and in the pixels.
"""

import re
import struct
from pathlib import Path

import numpy as np

from geo4d.errors import InputError
from geo4d.video.animation import Animation, find_animation
from geo4d.video.headers.heif import decode_heif, heif_pages
from geo4d.video.headers.jpeg import check_jpeg, jpeg_page
from geo4d.video.headers.page import Page
from geo4d.video.headers.png import check_png, png_page
from geo4d.video.headers.sized import bmp_page, check_bmp, check_pnm, check_webp, pnm_page, webp_page
from geo4d.video.headers.tiff import put_in_front, tiff_pages
from geo4d.video.limits import MAX_FRAMES, MAX_PIXELS

IMAGE_SUFFIXES = (
    ".png",
    ".apng",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pnm",
    ".heic",
    ".heif",
    ".hif",
)

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def sniff_image(head: bytes) -> str | None:
    """``png``, ``jpeg``, ``webp``, ``bmp``, ``tiff``, ``pnm``, ``heif`` by the first bytes, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"BM"):
        return "bmp"
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "tiff"
    if re.match(rb"P[2356]\s", head):
        return "pnm"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "heif"
    return None


class PictureFile:
    """A picture file that is whole: its pages, decoded one at a time.

    PNG chunks are checked by their CRC, JPEG by its end marker, TIFF, BMP, PNM and WebP by their length, since decoders
    return a partly grey picture for a cut one.

    Args:
        path: of a regular file.
    Raises:
        InputError: missing, no regular file, empty, foreign, cut, damaged, or more than ``MAX_PIXELS``.
        MissingExtraError: a HEIC picture, and the extra ``heic`` is not installed.

    Attributes:
        kind: as of ``sniff_image``.
        pages: frames of an animation, pages of a TIFF, otherwise one.
        times_s: [pages] of an animation, from its delays; None for pages without times.
        skipped: pages of a TIFF that are previews or masks of another page, not frames.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not path.is_file():
                raise InputError(_no_file(path))
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}") from error
        if not data:
            raise InputError("the file is empty")
        kind = sniff_image(data[:16])
        if kind is None:
            raise InputError("expected a PNG, JPEG, WebP, BMP, TIFF, PNM or HEIC picture, got other content")
        self.kind = kind
        self._data: bytes | bytearray = bytearray(data) if kind == "tiff" else data
        self.times_s: np.ndarray | None = None
        self.skipped = 0
        self._animation: Animation | None = None
        try:
            self.pages = self._read_header()
        except (struct.error, ValueError, IndexError, KeyError) as error:
            raise InputError(f"the header of the {kind} picture is damaged") from error

    def _read_header(self) -> tuple[Page, ...]:
        data = self._data
        if self.kind == "tiff":
            pages, self.skipped = tiff_pages(data)
        elif self.kind == "heif":
            pages = heif_pages(bytes(data))
        else:
            pages = (_HEADERS[self.kind](bytes(data)),)
        for page in pages:
            height, width = page.stored
            if height * width > MAX_PIXELS:
                raise InputError(
                    f"declares {width} x {height} pixels; the limit is {MAX_PIXELS / 1e6:.0f} million; "
                    "scale it down first"
                )
            if height <= 0 or width <= 0:
                raise InputError("declares a picture without pixels")
        if self.kind in _CHECKS:
            _CHECKS[self.kind](bytes(data))
        if self.kind in ("png", "webp"):
            self._animation = find_animation(bytes(data), self.kind)
        if self._animation is not None:
            if self._animation.num_frames > MAX_FRAMES:
                raise InputError(f"has more than {MAX_FRAMES} frames")
            self.times_s = self._animation.times_s
            pages *= self._animation.num_frames
        return pages

    @property
    def num_pages(self) -> int:
        """Number of pictures in the file."""
        return len(self.pages)

    def read(self, index: int) -> np.ndarray:
        """A page as displayed, values as stored: [H, W], [H, W, 3] (RGB) or [H, W, 4] (RGB and alpha).

        Raises:
            InputError: it cannot be decoded.
        """
        import cv2

        page = self.pages[index]
        try:
            if self._animation is not None:
                image = self._animation.read(index)
            elif self.kind == "heif":
                return decode_heif(self._data, index)
            elif self.kind == "tiff":
                put_in_front(self._data, page.place)
                image = _decode(self._data, cv2.IMREAD_UNCHANGED)
            elif self.kind in ("jpeg", "bmp"):  # CMYK becomes RGB; the fourth byte of a BMP is no alpha
                image = _decode(self._data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            else:
                image = _decode(self._data, cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise InputError(f"cannot be decoded: {error.err}") from error
        if image is None or image.shape[:2] != page.stored:
            raise InputError("cannot be decoded; the picture is damaged")
        if image.ndim == 3 and image.shape[2] == 2:  # grey and alpha
            image = image[..., [0, 0, 0, 1]]
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3:
            image = image[..., [2, 1, 0, 3][: image.shape[2]]]
        return turn(image, page.orientation)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture [H, W, ...] as EXIF orientation 1..8 wants it displayed."""
    if orientation in (2, 3):
        image = image[:, ::-1]
    if orientation in (3, 4):
        image = image[::-1]
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (6, 7):
        image = image[:, ::-1]
    if orientation in (7, 8):
        image = image[::-1]
    return image


def to_colour(image: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """A picture of any depth as [H, W, 3] uint8; alpha over black.

    Args:
        image: as of ``PictureFile.read``.
        value_range: values that become 0 and 255, for pictures of more than 8 bits. What is not finite becomes 0.
    """
    alpha = None
    if image.ndim == 3 and image.shape[2] == 4:
        image, alpha = image[..., :3], image[..., 3:]
    if image.dtype != np.uint8:
        low, high = value_range or (0.0, 1.0)
        scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        scaled = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
        image = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    if alpha is not None:
        if alpha.dtype != np.uint8:
            most = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1.0
            alpha = np.rint(np.clip(alpha.astype(np.float32) * (255 / most), 0, 255)).astype(np.uint8)
        image = ((image * alpha.astype(np.uint16) + 127) // 255).astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image)


def check_picture(data: bytes) -> tuple[int, int]:
    """(height, width) as stored of a PNG, JPEG or WebP picture in memory that is whole.

    Raises:
        InputError: foreign, cut, damaged, or more than ``MAX_PIXELS``.
    """
    kind = sniff_image(data[:16])
    if kind not in ("png", "jpeg", "webp"):
        raise InputError("expected a PNG, JPEG or WebP picture, got other content")
    try:
        page = _HEADERS[kind](data)
        _CHECKS[kind](data)
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise InputError(f"the header of the {kind} picture is damaged") from error
    height, width = page.stored
    if not 0 < height * width <= MAX_PIXELS:
        raise InputError(f"declares {width} x {height} pixels; the limit is {MAX_PIXELS / 1e6:.0f} million")
    return height, width


def _no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, not a picture"
    if path.exists():
        return "is not a regular file"
    return "is a link to a file that is not there" if path.is_symlink() else "does not exist"


def _decode(data: bytes | bytearray, flags: int) -> np.ndarray | None:
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


_HEADERS = {"png": png_page, "jpeg": jpeg_page, "webp": webp_page, "bmp": bmp_page, "pnm": pnm_page}
_CHECKS = {
    "png": check_png,
    "jpeg": check_jpeg,
    "webp": check_webp,
    "bmp": check_bmp,
    "pnm": check_pnm,
}
