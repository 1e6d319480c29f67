"""Whether the installed decoder is one that this package works with."""

import re
import tempfile
from pathlib import Path

from geo4d.errors import InputError
from geo4d.video.containers import VideoFile, first_line

PYAV_TESTED = ("17.1", "20")
"""Versions of PyAV that the decoder is tested with: from the first on, below the second. Before 17.1 every FLV file
crashes the process. Its major versions drop arguments (19: ``metadata_errors``), so a newer one is no promise."""


def decoder_problem() -> str | None:
    """Why videos cannot be decoded here, or None: the version of PyAV, and a small clip that is really read."""
    try:
        import av
    except ImportError as error:
        return f"PyAV cannot be imported: {error}"
    low, high = PYAV_TESTED
    advice = f"install a tested one: pip install 'av>={low},<{high}'"
    if not _numbers(low) <= _numbers(av.__version__) < _numbers(high):
        tested = f"({low} <= version < {high})"
        return f"PyAV {av.__version__} is not among the tested versions {tested}; {advice}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.y4m"
        path.write_bytes(
            b"YUV4MPEG2 W16 H16 F25:1 It A1:1 C420jpeg\n" + 3 * (b"FRAME\n" + bytes([128]) * 384)
        )
        try:
            video = VideoFile(path)
            grey = video.read(2)
            video.close()
        except (InputError, TypeError, AttributeError, ValueError, LookupError) as error:
            return f"PyAV {av.__version__} does not work with this geo4d ({first_line(error)}); {advice}"
    if video.num_frames != 3 or abs(int(grey.mean()) - 130) > 2:
        return f"PyAV {av.__version__} decodes wrongly; {advice}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version)[:3])
