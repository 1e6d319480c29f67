"""What can be said of a video before anything that decodes is loaded: a long command begins with a sign of life."""

import struct
from pathlib import Path

from geo4d.formats.bags import bag_kind
from geo4d.video.integrity import declared_size
from geo4d.video.pictures import sniff_image
from geo4d.video.sniff import container_of, first_bytes


def outset(source: Path) -> str:
    """One line about a source by its name and its first bytes; loads neither torch nor a decoder.

    Raises:
        InputError: a file that is no video; what else may be wrong is found when it is opened.
    """
    bag = bag_kind(source)
    if bag is not None:
        return f"{source.name}: a {bag}" if bag != "MCAP file" else f"{source.name}: an {bag}"
    if not source.is_file():
        return f"{source.name}: a folder" if source.is_dir() else f"{source.name}"
    size = f"{source.stat().st_size / 1e6:.1f} MB"
    if sniff_image(first_bytes(source)[:16]) is not None:
        return f"{source.name}: a picture, {size}"
    container = container_of(source)
    try:
        shape = declared_size(source, container)
    except (
        OSError,
        ValueError,
        struct.error,
    ):  # a damaged header: what that means is found when the file is decoded
        shape = None
    return f"{source.name}: {container}, {f'{shape[0]}x{shape[1]}, ' if shape else ''}{size}"
