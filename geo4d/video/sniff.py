"""What a video file is, by its first bytes: the demuxer is chosen here, never by FFmpeg from the name."""

from pathlib import Path

from geo4d.errors import InputError

SNIFF_BYTES = 4096

VIDEO_SUFFIXES = (
    *(
        ".mp4",
        ".m4v",
        ".mov",
        ".qt",
        ".3gp",
        ".3g2",
        ".mkv",
        ".webm",
        ".avi",
        ".gif",
        ".ogv",
        ".ogg",
        ".ogm",
        ".flv",
    ),
    *(
        ".asf",
        ".wmv",
        ".mpg",
        ".mpeg",
        ".mpe",
        ".vob",
        ".m1v",
        ".m2v",
        ".mxf",
        ".ivf",
        ".y4m",
        ".ts",
        ".mts",
        ".m2ts",
    ),
    *(".m2t", ".h264", ".264", ".avc", ".hevc", ".h265", ".265"),
)
"""Usual names of the containers that ``sniff_container`` knows: where files are looked for, not where one is opened."""


def first_bytes(path: Path) -> bytes:
    """What ``sniff_container`` looks at.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    try:
        with path.open("rb") as file:
            head = file.read(SNIFF_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path} is empty (0 bytes); expected a video file")
    return head


def container_of(path: Path) -> str:
    """FFmpeg demuxer for a video file, by its first bytes.

    Raises:
        InputError: it cannot be read, is empty, or is no video container that we open.
    """
    head = first_bytes(path)
    demuxer = sniff_container(head)
    if demuxer is None:
        raise InputError(f"{path} is not a video file that geo4d opens: {describe(head)}")
    return demuxer


def sniff_container(head: bytes) -> str | None:
    """FFmpeg demuxer for a file that starts with ``head``, or None when it is not a video container we open.

    An allow-list: text formats, among them every playlist, and still images have no entry.
    """
    if len(head) < 12:
        return "gif" if head[:6] in (b"GIF87a", b"GIF89a") else None
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    for magic, demuxer in (
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"OggS", "ogg"),
        (b"FLV\x01", "flv"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"\x00\x00\x01\xb3", "mpegvideo"),
        (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "mxf"),
        (b"DKIF", "ivf"),
        (b"YUV4MPEG2", "yuv4mpegpipe"),
    ):
        if head.startswith(magic):
            return demuxer
    if len(head) >= 377 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    if len(head) >= 389 and head[4] == head[196] == head[388] == 0x47:
        return "mpegts"  # packets of 192 bytes, as camcorders write them
    start = 4 if head[:4] == b"\x00\x00\x00\x01" else 3 if head[:3] == b"\x00\x00\x01" else 0
    if start and head[start] & 0x9F == 0x07:
        return "h264"
    if start and (head[start] >> 1) & 0x3F in (32, 33):
        return "hevc"
    return None


def describe(head: bytes) -> str:
    """What a file that is no video looks like, in a few words."""
    known = {
        b"#EXTM3U": "it is a playlist, and those are not followed",
        b"ffconcat": "it is a concatenation script, and those are not followed",
        b"[playlist]": "it is a playlist, and those are not followed",
        b"%PDF": "it is a PDF document",
        b"PK\x03\x04": "it is a zip archive",
        b"ID3": "it is an audio file",
        b"fLaC": "it is an audio file",
        b"\x7fELF": "it is a program",
        b"<": "it is XML or HTML",
    }
    for magic, text in known.items():
        if head.startswith(magic):
            return text
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "it is an audio file"
    text_bytes = set(range(32, 127)) | {9, 10, 13}
    return "it is text" if all(byte in text_bytes for byte in head[:512]) else "unknown content"
