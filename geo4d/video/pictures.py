"""One picture file: its pages, their sizes as displayed, whether it is whole, and decoding.

Header and decoder follow one rule: OpenCV is never left to turn a picture. The orientation is read here, for every
format alike, the size is that of the turned picture, and what was decoded lying is turned by the same number. HEIC states
its turns as properties of the picture, which its decoder applies in the size and in the pixels.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.errors import InputError, MissingExtraError
from geo4d.video.animation import Animation, find_animation
from geo4d.video.containers import MAX_FRAMES, MAX_PIXELS

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
_ORIENTATION, _SUBFILE, _BITS, _SAMPLE_FORMAT = 274, 254, 258, 339
_REDUCED_OR_MASK = 0b101


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


@dataclass(frozen=True)
class Page:
    """One picture of a file.

    Attributes:
        stored: (height, width) of the rows and columns in the file.
        orientation: 1..8 as in EXIF; how the stored picture is turned to be displayed.
        deep: more than 8 bits a channel, so that its values need a range.
        place: of the page in a TIFF: the offset of its directory.
    """

    stored: tuple[int, int]
    orientation: int = 1
    deep: bool = False
    place: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as displayed."""
        return (self.stored[1], self.stored[0]) if self.orientation >= 5 else self.stored


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
            pages, self.skipped = _tiff_pages(data)
        elif self.kind == "heif":
            pages = _heif_pages(bytes(data))
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
                return _decode_heif(self._data, index)
            elif self.kind == "tiff":
                _put_in_front(self._data, page.place)
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


def _no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, not a picture"
    if path.exists():
        return "is not a regular file"
    return "is a link to a file that is not there" if path.is_symlink() else "does not exist"


def _decode(data: bytes | bytearray, flags: int) -> np.ndarray | None:
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


# PNG ------------------------------------------------------------------------------------------------------------------


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def _png_page(data: bytes) -> Page:
    width, height, bits = struct.unpack(">IIB", data[16:25])
    orientation = 1
    for name, payload in _png_chunks(data):
        if name == b"eXIf":
            orientation = _exif_orientation(payload)
        elif name in (b"tEXt", b"zTXt") and payload.startswith(b"Raw profile type "):
            orientation = _text_orientation(name, payload)  # how EXIF was kept in PNG before it had a chunk
    return Page((height, width), orientation, bits > 8)


def _text_orientation(name: bytes, payload: bytes) -> int:
    key, _, text = payload.partition(b"\0")
    if key not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return 1
    try:
        text = zlib.decompressobj().decompress(text[1:], 2**20) if name == b"zTXt" else text
        words = text.split()
        return _exif_orientation(bytes.fromhex(b"".join(words[2:]).decode("ascii")))
    except (zlib.error, ValueError):
        return 1


def _check_png(data: bytes) -> None:
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise InputError("the PNG picture is damaged: a check sum is wrong")
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end
    raise InputError("the PNG picture is cut")


# JPEG -----------------------------------------------------------------------------------------------------------------


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, payload start, payload end) of the segments before the picture data."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ValueError("no marker")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, position + 2 + length
        if marker == 0xDA:
            return
        position += 2 + length


def _jpeg_page(data: bytes) -> Page:
    size: tuple[int, int] | None = None
    orientation = 1
    for marker, start, end in _jpeg_segments(data):
        if size is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = struct.unpack(">HH", data[start + 1 : start + 5])
        if marker == 0xE1 and data[start : start + 6] == b"Exif\x00\x00":
            orientation = _exif_orientation(data[start:end])
    if size is None:
        raise ValueError("no frame header")
    return Page(size, orientation)


def _check_jpeg(data: bytes) -> None:
    *_, (marker, scan, _) = _jpeg_segments(data)
    if marker != 0xDA or data.find(b"\xff\xd9", scan) < 0:
        raise InputError("the JPEG picture is cut: its end marker is missing")


# WebP, BMP, PNM -------------------------------------------------------------------------------------------------------


def _webp_page(data: bytes) -> Page:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        orientation, position = 1, 12
        while position + 8 <= len(data):
            length = int.from_bytes(data[position + 4 : position + 8], "little")
            if data[position : position + 4] == b"EXIF":
                orientation = _exif_orientation(data[position + 8 : position + 8 + length])
            position += 8 + length + length % 2
        return Page((height, width), orientation)
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return Page((((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1))
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Page((height & 0x3FFF, width & 0x3FFF))
    raise ValueError("no size")


def _check_webp(data: bytes) -> None:
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise InputError("the WebP picture is cut")


def _bmp_page(data: bytes) -> Page:
    width, height = struct.unpack("<ii", data[18:26])
    return Page((abs(height), abs(width)))


def _check_bmp(data: bytes) -> None:
    start, width, height, bits, packing = struct.unpack("<10xI4xii2xHI", data[:34])
    row = (abs(width) * bits + 31) // 32 * 4
    if packing in (0, 3) and start + row * abs(height) > len(data):  # others have no fixed length
        raise InputError("the BMP picture is cut")


def _pnm_fields(data: bytes) -> tuple[bytes, list[int], int]:
    """Magic, (width, height, largest value), and where the values begin."""
    gap = rb"(?:\s+|#[^\n]*\n)+"
    match = re.match(rb"(P[2356])" + 2 * (gap + rb"(\d+)") + gap + rb"(\d+)\s", data[:4096])
    if match is None:
        raise ValueError("no size")
    return match[1], [int(match[i]) for i in (2, 3, 4)], match.end()


def _pnm_page(data: bytes) -> Page:
    _, (width, height, most), _ = _pnm_fields(data)
    return Page((height, width), deep=most > 255)


def _check_pnm(data: bytes) -> None:
    magic, (width, height, most), start = _pnm_fields(data)
    channels = 3 if magic in (b"P3", b"P6") else 1
    if magic in (b"P5", b"P6"):
        cut = start + width * height * channels * (2 if most > 255 else 1) > len(data)
    else:
        cut = len(data[start:].split()) < width * height * channels
    if cut:
        raise InputError("the PNM picture is cut")


# TIFF, and EXIF, which is one -----------------------------------------------------------------------------------------

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
_TYPE_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Tags:
    """Directory of a TIFF: tag -> (type code, count, where the values are)."""

    order: str
    entries: dict[int, tuple[str, int, int]]
    following: int

    def values(self, data: bytes | bytearray, tag: int) -> tuple[int, ...]:
        """Values of an integer tag; empty without it."""
        if tag not in self.entries:
            return ()
        code, count, start = self.entries[tag]
        return struct.unpack(
            f"{self.order}{count}{code}", data[start : start + count * struct.calcsize(code)]
        )

    def first(self, data: bytes | bytearray, tag: int, default: int) -> int:
        return next(iter(self.values(data, tag)), default)


def _tiff_layout(data: bytes | bytearray) -> tuple[str, bool]:
    """Byte order and whether offsets have 64 bits."""
    order = "<" if data[:2] == b"II" else ">"
    return order, struct.unpack(order + "H", data[2:4])[0] == 43


def _first_directory(data: bytes | bytearray) -> int:
    order, big = _tiff_layout(data)
    return struct.unpack(order + ("Q" if big else "I"), data[8:16] if big else data[4:8])[0]


def _tiff_tags(data: bytes | bytearray, offset: int) -> _Tags:
    """Integer tags of the directory at ``offset``."""
    order, big = _tiff_layout(data)
    head, entry_bytes, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    start = offset + struct.calcsize(head)
    (count,) = struct.unpack(order + head, data[offset:start])
    entries = {}
    for i in range(min(count, 4096)):
        at = start + entry_bytes * i
        tag, kind, number = struct.unpack(
            order + ("HHQ" if big else "HHI"), data[at : at + entry_bytes - inline]
        )
        if kind in _TYPE_CODES:
            values = at + entry_bytes - inline
            if number * _TYPE_BYTES[kind] > inline:
                (values,) = struct.unpack(order + ("Q" if big else "I"), data[values : values + inline])
            entries[tag] = (_TYPE_CODES[kind], number, values)
    end = start + entry_bytes * count
    link = data[end : end + inline]
    following = struct.unpack(order + ("Q" if big else "I"), link)[0] if len(link) == inline else 0
    return _Tags(order, entries, following)


def _tiff_pages(data: bytes | bytearray) -> tuple[tuple[Page, ...], int]:
    """The frames of a TIFF, and the number of its pages that are previews or masks."""
    pages: list[Page] = []
    skipped, seen, offset = 0, set[int](), _first_directory(data)
    while offset and offset not in seen:
        seen.add(offset)
        if len(seen) > MAX_FRAMES:
            raise InputError(f"has more than {MAX_FRAMES} pages")
        tags = _tiff_tags(data, offset)
        height, width = tags.first(data, 257, 0), tags.first(data, 256, 0)
        if not height or not width:
            raise ValueError("no size")
        if pages and tags.first(data, _SUBFILE, 0) & _REDUCED_OR_MASK:
            skipped += 1
        else:
            _check_strips(data, tags)
            deep = max(tags.values(data, _BITS), default=1) > 8
            deep = deep or tags.first(data, _SAMPLE_FORMAT, 1) in (2, 3)
            orientation = tags.first(data, _ORIENTATION, 1)
            pages.append(Page((height, width), orientation if 1 <= orientation <= 8 else 1, deep, offset))
        offset = tags.following
    return tuple(pages), skipped


def _check_strips(data: bytes | bytearray, tags: _Tags) -> None:
    """Strips or tiles must lie inside the file."""
    for offsets, lengths in ((273, 279), (324, 325)):
        starts, counts = tags.values(data, offsets), tags.values(data, lengths)
        if any(start + count > len(data) for start, count in zip(starts, counts, strict=False)):
            raise InputError("the TIFF picture is cut")


def _put_in_front(data: bytes | bytearray, place: int) -> None:
    """Make that page the first one, and as stored: OpenCV decodes the first one, and would turn it."""
    order, big = _tiff_layout(data)
    struct.pack_into(order + ("Q" if big else "I"), data, 8 if big else 4, place)  # type: ignore[arg-type]
    tags = _tiff_tags(data, place)
    if _ORIENTATION in tags.entries:
        code, _, start = tags.entries[_ORIENTATION]
        struct.pack_into(order + code, data, start, 1)  # type: ignore[arg-type]


def _exif_orientation(exif: bytes) -> int:
    """Orientation 1..8; 1 where there is none or where the block cannot be read."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    try:
        value = _tiff_tags(exif, _first_directory(exif)).first(exif, _ORIENTATION, 1)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


# HEIC -----------------------------------------------------------------------------------------------------------------


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


def _heif_pages(data: bytes) -> tuple[Page, ...]:
    return tuple(Page((item.size[1], item.size[0])) for item in _open_heif(data))


def _decode_heif(data: bytes | bytearray, index: int) -> np.ndarray:
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


_HEADERS = {"png": _png_page, "jpeg": _jpeg_page, "webp": _webp_page, "bmp": _bmp_page, "pnm": _pnm_page}
_CHECKS = {
    "png": _check_png,
    "jpeg": _check_jpeg,
    "webp": _check_webp,
    "bmp": _check_bmp,
    "pnm": _check_pnm,
}
