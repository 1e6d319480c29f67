"""Clips of every container, and what reading one ends in."""

from geo4d.errors import InputError
from geo4d.video.containers import VideoFile
from tests.video.clips import encode, pictures

FAST = {"deadline": "realtime", "cpu-used": "8"}


CLIPS = {
    "mp4": ("clip.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    "mkv": ("clip.mkv", {}),
    "webm": ("clip.webm", {"codec": "libvpx", "options": FAST}),
    "webm9": ("clip.webm", {"codec": "libvpx-vp9", "options": FAST}),
    "ts": ("clip.ts", {"codec": "mpeg2video"}),
    "flv": ("clip.flv", {"codec": "flv"}),
    "avi": ("clip.avi", {}),
    "avi-mjpeg": ("clip.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "gif": ("clip.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    "mpg": ("clip.mpg", {"codec": "mpeg2video"}),
    "ogg": ("clip.ogg", {"codec": "libvpx", "options": FAST}),
    "ivf": ("clip.ivf", {"codec": "libvpx", "options": FAST}),
    "mxf": ("clip.mxf", {"codec": "mpeg2video"}),
    "wmv": ("clip.wmv", {"codec": "wmv2"}),
}


LENGTH = 40


def clip(tmp_path, kind):
    name, settings = CLIPS[kind]
    return encode(tmp_path / name, pictures(LENGTH, 48, 64), **settings)


def outcome(path):
    """(frames, what is said); a refusal has no frames."""
    try:
        table = VideoFile(path).table
    except InputError as error:
        return 0, str(error)
    return table.num_frames, table.damage
