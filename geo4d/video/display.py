"""From a decoded picture to the one that a player shows.

What a stream says about its pictures is applied here, once, for the size that is planned with and for the pixels that
are read: range and matrix of the colours, HDR to SDR, alpha, the shape of the pixels, and the display matrix. What
cannot be applied is refused by name.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from geo4d.errors import InputError

HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Code of the transfer function (ITU-T H.273) -> its name."""

REFERENCE_WHITE = 203.0
"""Luminance of the white of SDR pictures within HDR, candela per square metre (ITU-R BT.2408)."""

HLG_PEAK = 1000.0
"""Luminance of the brightest HLG signal on the display that the system gamma of 1.2 belongs to (ITU-R BT.2100)."""

_PQ_PEAK = 10_000.0
_KNEE = 0.9
"""Share of the white up to which colours are kept as they are; all that is brighter goes between here and white."""

# Codes of the matrix coefficients (H.273) -> the numbers by which swscale knows them.
_BT709, _BT601, _BT2020 = 1, 5, 9
_MATRICES = {1: _BT709, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: _BT2020}
_REFUSED_MATRICES = {8: "YCgCo", 10: "BT.2020 constant luminance", 14: "ICtCp", 15: "IPT-C2"}
_LIMITED, _FULL = 1, 2

_BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]],
    np.float32,
)
"""Linear colours, ITU-R BT.2087."""


@dataclass(frozen=True)
class Turn:
    """How the decoded picture is laid upright: first ``transpose``, then the mirrors."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """[H, W, 3] -> the same or [W, H, 3], contiguous."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return np.ascontiguousarray(picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])


def turn_of(frame: Any) -> Turn:
    """What the display matrix of a decoded frame asks for.

    A matrix of positive determinant turns, one of negative determinant mirrors, too; both are read off its entries, so
    that no angle is needed.

    Raises:
        InputError: it is neither a quarter turn nor a mirror image of one.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return Turn()
    # x' = a x + c y, y' = b x + d y, in 16.16 fixed point; x to the right, y down.
    a, b, _, c, d = (float(entry) for entry in np.frombuffer(bytes(found), np.int32)[:5])
    if not any((a, b, c, d)):
        return Turn()
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if straight > 0 and max(abs(b), abs(c)) <= 0.02 * straight:
        return Turn(False, mirror_x=a < 0, mirror_y=d < 0)
    if crossed > 0 and max(abs(a), abs(d)) <= 0.02 * crossed:
        return Turn(True, mirror_x=c < 0, mirror_y=b < 0)
    degrees = float(np.degrees(np.arctan2(b, a)))
    raise InputError(
        f"its display matrix turns the picture by {degrees:.0f} degrees; expected quarter turns and mirror images of "
        "them; turn it with an editor first"
    )


def square_width(width: int, ratio: Fraction | None) -> int:
    """Width of a picture after its pixels became square.

    Args:
        ratio: width of a pixel over its height; None or 0: not stated, square.
    Raises:
        InputError: a ratio beyond 1:4 or 4:1, which no camera has.
    """
    if not ratio:
        return width
    if not Fraction(1, 4) <= ratio <= 4:
        raise InputError(
            f"it declares pixels of the shape {ratio.numerator}:{ratio.denominator}; expected 1:4 to 4:1; the header "
            "is damaged, or set the right shape first"
        )
    return max(round(width * ratio), 1)


def displayed_size(frame: Any, ratio: Fraction | None) -> tuple[int, int]:
    """(height, width) of the picture that ``to_rgb`` makes of ``frame``."""
    height, width = frame.height, square_width(frame.width, ratio)
    return (width, height) if turn_of(frame).transpose else (height, width)


def source_colours(frame: Any) -> tuple[int, int]:
    """Matrix (as swscale counts) and range (1 limited, 2 full) of the colours of a frame, as players take them.

    An untagged picture has the matrix of BT.709 from 720 lines or 1280 columns on, else that of BT.601, and limited
    range unless its pixel format says otherwise.

    Raises:
        InputError: a matrix that is not supported.
    """
    code = int(frame.colorspace)
    if code in _REFUSED_MATRICES:
        raise InputError(
            f"its colours are coded as {_REFUSED_MATRICES[code]}, which is not supported; convert it to BT.709 first"
        )
    high = frame.height >= 720 or frame.width >= 1280
    matrix = _MATRICES.get(code, _BT709 if high else _BT601)
    name = frame.format.name
    if name.startswith("yuvj"):
        return matrix, _FULL
    stated = int(frame.color_range)
    untagged = _FULL if name.startswith(("gray", "ya", "mono", "pal")) or frame.format.is_rgb else _LIMITED
    return matrix, stated if stated in (_LIMITED, _FULL) else untagged


def to_rgb(frame: Any, ratio: Fraction | None, transfer: int, picture: Any = None) -> np.ndarray:
    """[H, W, 3] uint8 as displayed: SDR colours, alpha over black, square pixels, upright.

    Args:
        frame: a decoded ``av.VideoFrame``.
        ratio: width of a pixel over its height.
        transfer: code of the transfer function (H.273); PQ and HLG are mapped to SDR.
        picture: the pixels of the frame where they are others than its own (deinterlaced).
    """
    import cv2

    matrix, colour_range = source_colours(frame)

    def converted(pixel_format: str) -> np.ndarray:
        # Everything is stated, so that no default of PyAV or swscale decides; RGB has no matrix, 0 is ignored.
        return (picture or frame).to_ndarray(
            format=pixel_format,
            src_colorspace=matrix,
            dst_colorspace=0,
            src_color_range=colour_range,
            dst_color_range=_FULL,
            threads=1,  # by default every frame starts threads of its own, which cost more than they bring
        )

    if transfer in HDR_TRANSFERS:
        # gbrp16: the way of swscale from 10-bit 4:2:0 to rgb48 is wrong by half the range in FFmpeg 8.0.
        array = hdr_to_sdr(converted("gbrp16le"), transfer)
    elif any(component.is_alpha for component in frame.format.components):
        array = converted("rgba")
        alpha = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * alpha + 127) // 255).astype(np.uint8)
    else:
        array = converted("rgb24")
    width = square_width(frame.width, ratio)
    if width != frame.width:
        array = cv2.resize(array, (width, frame.height), interpolation=cv2.INTER_LINEAR)
    return turn_of(frame)(array)


def hdr_to_sdr(signal: np.ndarray, transfer: int) -> np.ndarray:
    """PQ or HLG pictures in BT.2020 to SDR in BT.709.

    The white of SDR is put at 203 candela per square metre, where HDR productions put it, so that what was SDR before
    comes back; only what is brighter than 90 % of it is compressed, with its hue kept.

    Args:
        signal: [H, W, 3] uint16, full range.
        transfer: 16 (PQ) or 18 (HLG).
    Returns:
        [H, W, 3] uint8, coded with the inverse of the display gamma 2.4 (ITU-R BT.1886).
    Source: ITU-R BT.2100 (PQ, HLG), BT.2087 (primaries), BT.2408 (white).
    """
    import cv2

    linear = _linear_table(transfer).take(signal)
    if transfer == 18:
        luminance = cv2.transform(linear, np.array([[0.2627, 0.6780, 0.0593]], np.float32))
        linear *= (HLG_PEAK / REFERENCE_WHITE) * cv2.pow(luminance, 0.2)[..., None]
    linear = np.maximum(cv2.transform(linear, _BT2020_TO_BT709), 0)
    brightest = linear.max(axis=-1)
    bright = brightest > _KNEE
    peak = (HLG_PEAK if transfer == 18 else _PQ_PEAK) / REFERENCE_WHITE
    over = (brightest[bright] - _KNEE) / (1 - _KNEE)
    most = (peak - _KNEE) / (1 - _KNEE)
    kept = _KNEE + (1 - _KNEE) * over * (1 + over / most**2) / (1 + over)
    linear[bright] *= (kept / brightest[bright])[:, None]
    return _coded_table().take(np.minimum(linear * 65535 + 0.5, 65535).astype(np.uint16))


@cache
def _linear_table(transfer: int) -> np.ndarray:
    """16-bit signal -> light: of PQ in units of the reference white, of HLG the scene's in [0, 1]. float32."""
    signal = np.arange(65536) / 65535
    if transfer == 16:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * (_PQ_PEAK / REFERENCE_WHITE)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)


@cache
def _coded_table() -> np.ndarray:
    """16-bit linear light -> 8-bit code for a display of gamma 2.4."""
    return np.rint((np.arange(65536) / 65535) ** (1 / 2.4) * 255).astype(np.uint8)
