import io
import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from geo4d.errors import InputError
from geo4d.video.io import Video
from geo4d.video.pictures import PictureFile
from tests.support.images import moving


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("kind", "dispose"), [("PNG", 0), ("PNG", 1), ("PNG", 2), ("WEBP", 0)])
def test_every_frame_of_an_animation_as_another_decoder_gives_it(tmp_path, kind, alpha, dispose):
    path = tmp_path / f"a.{kind.lower()}"
    images = [Image.fromarray(frame) for frame in moving(alpha=alpha)]
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {"disposal": dispose, "blend": 1}
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[40, 50, 60, 70, 80, 90], **options
    )
    video = Video(path)
    np.testing.assert_allclose(video.times_s, [0, 0.04, 0.09, 0.15, 0.22, 0.30])
    assert any("6 frames of an animation" in note for note in video.notes)
    if kind == "PNG":  # FFmpeg: Pillow forgets alpha when it lays a frame over another
        with av.open(str(path)) as container:
            other = [frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]
    else:  # libwebp's own player
        other = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(Image.open(path))]
    assert len(other) == 6
    order = [0, 1, 2, 3, 4, 5, 2, 5, 0]
    for t in order:
        rgba = other[t].astype(int)
        black = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
        assert np.abs(video.read([t])[0].numpy() * 255 - black).max() <= 1.01, t
    assert Video(path, stop=3).num_frames == 3


def test_a_rectangle_over_an_offset_and_a_cleared_one(tmp_path):
    """Frames built by hand: 8 x 6 canvas, second frame 4 x 2 at (2, 3) laid over and then cleared."""

    def chunk(name, payload):
        return (
            struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))
        )

    def data(image):
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in image))

    def control(number, width, height, left, top, delay, dispose, blend):
        return chunk(
            b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, left, top, delay, 100, dispose, blend)
        )

    base = np.full((6, 8, 4), (10, 20, 30, 255), np.uint8)
    half = np.full((2, 4, 4), (200, 100, 50, 128), np.uint8)
    dot = np.full((1, 1, 4), (1, 2, 3, 255), np.uint8)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 8, 6, 0, 0, 0))
        + chunk(b"acTL", struct.pack(">II", 3, 0))
        + chunk(b"IDAT", data(np.full((6, 8, 4), 255, np.uint8)))  # not part of the animation
        + control(0, 8, 6, 0, 0, 0, 0, 0)
        + chunk(b"fdAT", struct.pack(">I", 1) + data(base))
        + control(2, 4, 2, 2, 3, 25, 1, 1)
        + chunk(b"fdAT", struct.pack(">I", 3) + data(half))
        + control(4, 1, 1, 0, 0, 25, 0, 0)
        + chunk(b"fdAT", struct.pack(">I", 5) + data(dot))
        + chunk(b"IEND", b"")
    )
    found = PictureFile(tmp_path / "a.png")
    assert found.num_pages == 3
    np.testing.assert_allclose(found.times_s, [0, 0.1, 0.35])  # no delay: a tenth of a second, as browsers
    second = base.copy()
    second[3:5, 2:6] = np.rint(
        [(200 * 128 + 10 * 127) / 255, (100 * 128 + 20 * 127) / 255, (50 * 128 + 30 * 127) / 255, 255]
    )
    third = base.copy()
    third[3:5, 2:6] = 0
    third[0, 0] = (1, 2, 3, 255)
    for t, expected in enumerate((base, second, third)):
        assert np.abs(found.read(t).astype(int) - expected).max() <= 1, t


@pytest.mark.parametrize("victim", ["order", "count"])
def test_a_damaged_animation_is_refused(tmp_path, victim):
    images = [Image.fromarray(frame) for frame in moving()]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=40)
    data = bytearray(buffer.getvalue())
    name = b"fdAT" if victim == "order" else b"acTL"
    at = data.find(name)
    length = int.from_bytes(data[at - 4 : at], "big")
    data[at + 7] ^= 1  # the low byte of the sequence number, of the number of frames
    data[at + 4 + length : at + 8 + length] = struct.pack(">I", zlib.crc32(data[at : at + 4 + length]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        Video(tmp_path / "a.png")
