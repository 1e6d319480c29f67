"""Whether the bytes of a container hold together: found by walking its structure, without decoding anything.

A demuxer looks for the next good place after damage and says nothing, so that pictures are lost in silence. The chain
of elements, the check sums and the counters that a container carries tell where that happens.
"""

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from geo4d.video.damage.chunks import check_avi, check_flv
from geo4d.video.damage.matroska import check_matroska, matroska_sizes
from geo4d.video.damage.mp4 import check_mp4
from geo4d.video.damage.mpeg import check_mpeg, check_mpegts
from geo4d.video.damage.packets import check_asf, check_ivf, check_mxf, check_ogg
from geo4d.video.damage.pictures import check_gif, check_y4m
from geo4d.video.damage.report import Damage
from geo4d.video.mp4 import Bytes, atoms


def find_damage(path: Path, demuxer: str, video_id: int = 0) -> Damage | None:
    """The first damage in a file, or None; None also where a container has nothing to check (raw H.264).

    Args:
        demuxer: name by ``sniff_container``.
        video_id: packet identifier of the video stream; used for ``mpegts``.
    """
    check = _CHECKS.get(demuxer)
    total = path.stat().st_size
    if check is None or total == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if demuxer == "mpegts":
            return check_mpegts(data, video_id)
        try:
            return check(data)
        except (struct.error, IndexError, KeyError, ValueError):
            return Damage("its header is damaged")


def has_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file holds the index of its pictures (``moov``), whole."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(kind == b"moov" and end <= len(data) for kind, _, end in atoms(data, 0, len(data)))


def declared_size(path: Path, demuxer: str) -> tuple[int, int] | None:
    """(width, height) in the header of an MP4, AVI or Matroska file; None when it is not found.

    FFmpeg hides a size that its decoder refuses.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        sizes: list[tuple[int, int]] = []
        if demuxer == "matroska":
            sizes = matroska_sizes(data)
        elif demuxer == "avi" and data[12:16] == b"LIST" and data[24:28] == b"avih":
            sizes = [struct.unpack_from("<II", data, 64)]
        elif demuxer == "mp4":
            for kind, start, end in atoms(data, 0, len(data)):
                place = data.find(b"tkhd", start, end) if kind == b"moov" else -1
                while place > 0:
                    stop = place - 4 + int.from_bytes(data[place - 4 : place], "big")
                    sizes += [(w >> 16, h >> 16) for w, h in [struct.unpack(">II", data[stop - 8 : stop])]]
                    place = data.find(b"tkhd", stop, end)
        return max(sizes, key=lambda size: size[0] * size[1], default=None)


_CHECKS: dict[str, Callable[[Bytes], Damage | None]] = {
    "mp4": check_mp4,
    "matroska": check_matroska,
    "avi": check_avi,
    "flv": check_flv,
    "mpegts": lambda data: None,  # needs to know the stream, see ``find_damage``
    "mpeg": check_mpeg,
    "ogg": check_ogg,
    "asf": check_asf,
    "mxf": check_mxf,
    "ivf": check_ivf,
    "yuv4mpegpipe": check_y4m,
    "gif": check_gif,
}
