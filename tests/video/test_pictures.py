"""Picture files against Pillow, libwebp and FFmpeg, which share no code with OpenCV or with our headers."""

import base64
import io
import struct
import sys
import zlib

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, ImageSequence

from geo4d.errors import InputError, MissingExtraError
from geo4d.video.frames import FrameFiles
from geo4d.video.io import Video
from geo4d.video.pictures import PictureFile, to_colour

HEIC = (
    "eNpjYGCQSSupLMhIzUxmAILczDRDEDs3MzGNgYGxNze1JJEBAhQzUnKKoGyGgszkEgY0YJKZkw82xMWBgYmBEcRi3AihgWArUAwImNLg"
    "IipAbJGZmZcG5oFkRYGcVLAyoJqMsmRDBiRBRpAS14pMsHK+gsySXAaoSoYzmQVFBUB6bWZBcj6QrgDqdWZkBglNACuS+8Dw5++PHwwM"
    "/MwJQB0SDow8jP//gxQwg1Qwg5DcLiaHRKCkthMjI5rMAoNG1mmvPDXX5TFJ8XCAhE6ACA6HJKB6dhfGg0UblByA1ohkFhekQn2XAMQg"
    "MYGCzIpMkAAzBwdQKwNnZlF+CdBYBvHMglxY2DIyMLI0MjG3AJlSmUWpaVBhvuSU4mRwWIJ8+TA3JREU6Bs1GNdzPngYblka///vJPn/"
    "/3l/n6h7c0vW0WxeXW00+z9l7/9/Hi10ePLdknebZfTmrf4tfTNO3vG3MdgxszCj89cWtvXro54d3Ztm+5/d/f/HyCcB2hJxebb7VNb9"
    "sVg4QWoBlw3HY6+TW6sDBJfObLQN5lV/+7n3v22uzY/39id42a12Ojhu9lXtt3qw8o4eN4fwvXLFyHde7PG+xyweL7/xypN5xQyD14L+"
    "z5tiC6dZ7Vvzvvv/x99/gI5mg8Scry+DFpDHwcDIKAQKXKDH2CB+BQBkmqTw"
)
"""96 x 64, red above, green and blue below; its rotation property turns it right by 90 degrees."""

HEIC_WITHOUT_ROTATION = (
    "eNpjYGCQSSupLMhIzUxmAILczDRDEDs3MzGNgYGxOTe1JJEBAhQzUnKKoGyGgszkEgY0YJKZkw82xMWBgYmBEcRiXA6hgWArUAwImGLg"
    "IipAbJGZmZcG5oFkRYGcVLAyoJqMsmRDBiRBRpAS14pMsHK+gsySXAaoSoZDmQVFBUB6SWZBcj6QrgDqdWZkBglNACuS+8Dw5++PHwwM"
    "/MwJQB0SDow8jP//gxQwg1Qwg5DcLiaHRKCkthMjI5rMAoNG1mmvPDXX5TFJ8XCAhE6ACA6HJKB6dhfGg0UblByA1ohkFhekQn2XAMQg"
    "MYGCzIpMkAAzBwdQK4NYZkEuLEgZGRiZG5mAdjBIZRalpkFF+ZJTipPBIQjy28PclERQUG/UYFzP+eBhuGVp/P+/k+T//+f9faLuzS1Z"
    "R7N5dbXR7P+Uvf//ebTQ4cl3S95tltGbt/q39M04ecffxmDHzMKMzl9b2Navj3p2dG+a7X929/8fI58EaEvE5dnuU1n3x2LhBKkFXDYc"
    "j71Obq0OEFw6s9E2mFf97efe/7a5Nj/e25/gZbfa6eC42Ve13+rByjt63BzC98oVI995scf7HrN4vPzGK0/mFTMMXgv6P2+KLZxmtW/N"
    "++7/H3//ATqaDRJfvr4MWkAeBwMjoxAoSIEeY4P4FQApxaJv"
)
"""The same with the turn in its EXIF only, which by the standard does not count."""


def picture(height=24, width=40, channels=3):
    """Different in every corner, so that any wrong turn or mirror shows."""
    y, x = np.mgrid[:height, :width]
    planes = [255 * x // (width - 1), 255 * y // (height - 1), np.full_like(x, 30) + 200 * (x + y < 12)]
    return np.stack([*planes, 255 - planes[0]][:channels], -1).astype(np.uint8)


def save(path, image, orientation=None, **options):
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    if path.suffix == ".tiff":
        options |= {"tiffinfo": {274: orientation}} if orientation is not None else {}
    elif orientation is not None:
        options["exif"] = exif
    Image.fromarray(image).save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".jpg", ".jfif"])
def test_orientation_is_one_rule_for_size_and_picture(tmp_path, suffix, orientation):
    options = (
        {"lossless": True} if suffix == ".webp" else {"quality": 98} if suffix in (".jpg", ".jfif") else {}
    )
    if suffix == ".jfif":
        options["format"] = "JPEG"
    path = save(tmp_path / f"a{suffix}", picture(), orientation, **options)
    truth = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    found = PictureFile(path)
    assert found.pages[0].size == truth.shape[:2] == ((40, 24) if orientation >= 5 else (24, 40))
    tolerance = 12 if suffix in (".jpg", ".jfif") else 0
    assert np.abs(found.read(0).astype(int) - truth).max() <= tolerance
    assert Video(path).read([0]).shape == (1, *truth.shape)


def test_orientation_in_the_text_of_an_old_png(tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0"
    text = b"Raw profile type exif\0" + f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()
    plain = save(tmp_path / "a.png", picture()).read_bytes()
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    (tmp_path / "b.png").write_bytes(plain[:33] + chunk + plain[33:])
    assert PictureFile(tmp_path / "b.png").pages[0].size == (40, 24)


@pytest.mark.parametrize("value", [0, 9, 777])
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path, value):
    assert PictureFile(save(tmp_path / "a.png", picture(), value)).pages[0].size == (24, 40)


def test_heic_is_upright_with_the_extra(tmp_path):
    pytest.importorskip("pi_heif")
    path = tmp_path / "a.heic"
    path.write_bytes(zlib.decompress(base64.b64decode(HEIC)))
    video = Video(path)
    assert video.size == (96, 64)
    corners = (video.read([0])[0, [8, 8, -8, -8], [8, -8, 8, -8]] * 255).round()
    # Turned right: what was below is on the left, what was above is on the right.
    expected = np.array([[20, 200, 20], [200, 20, 20], [20, 20, 200], [200, 20, 20]])
    assert np.abs(corners.numpy() - expected).max() < 8
    path.write_bytes(zlib.decompress(base64.b64decode(HEIC_WITHOUT_ROTATION)))
    assert Video(path).size == (64, 96)


def test_heic_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(zlib.decompress(base64.b64decode(HEIC)))
    for source in (tmp_path, tmp_path / "a.heic"):
        with pytest.raises(MissingExtraError, match=r"geo4d\[heic\]"):
            Video(source)


# Pages and animations -------------------------------------------------------------------------------------------------


def moving(count=6, alpha=False):
    frames = []
    for t in range(count):
        frame = picture(channels=4)
        frame[..., 3] = 255
        frame[4:12, 3 + 5 * t : 11 + 5 * t] = (250, 10 * t, 60, 255)
        if alpha:
            frame[14:20, 2 * t : 2 * t + 14, 3] = 90
        if alpha and t % 3 == 2:
            frame[:, 30:] = 0
        frames.append(frame)
    return frames


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


@pytest.mark.parametrize("big", [False, True])
def test_every_page_of_a_tiff(tmp_path, big):
    pages = [Image.fromarray(np.roll(picture(), 3 * t, axis=1)) for t in range(4)]
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], big_tiff=big, tiffinfo={274: 6})
    video = Video(path, fps=10)
    assert video.num_frames == 4
    assert video.size == (40, 24)
    np.testing.assert_allclose(video.times_s, [0, 0.1, 0.2, 0.3])
    assert any("4 pages; each is a frame" in note for note in video.notes)
    for t in (3, 0, 2, 1, 0):
        expected = np.rot90(np.asarray(pages[t]), -1)
        assert np.array_equal(np.rint(video.read([t])[0].numpy() * 255), expected)


def test_pages_inside_a_folder_are_stated(tmp_path):
    pages = [Image.fromarray(picture()) for _ in range(3)]
    for t in range(2):
        pages[0].save(tmp_path / f"{t}.tif", save_all=True, append_images=pages[1:])
    video = Video(tmp_path)
    assert video.num_frames == 2
    assert any("only the first page" in note and "0.tif (3)" in note for note in video.notes)
    (tmp_path / "1.tif").unlink()
    assert Video(tmp_path).num_frames == 3


def test_pages_of_another_size_end_the_readable_part(tmp_path):
    pages = [Image.fromarray(picture()), Image.fromarray(picture(12, 12))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"1 of 2 frames readable.*page 2 is 12 x 12"):
        Video(tmp_path / "a.tif")
    assert Video(tmp_path / "a.tif", allow_partial=True).num_frames == 1


# Depth ----------------------------------------------------------------------------------------------------------------


def deep_scene(count=4):
    """[T, H, W] in [0, 1], from black to white."""
    y, x = np.mgrid[:32, :48]
    return np.stack([((x + 3 * t) % 48) / 47 * 0.7 + 0.3 * y / 31 for t in range(count)])


def store(folder, values, suffix=".png"):
    folder.mkdir()
    for t, frame in enumerate(values):
        assert cv2.imwrite(str(folder / f"f{t}{suffix}"), frame)
    return folder


@pytest.mark.parametrize(
    ("low", "high", "dtype", "suffix"),
    [
        (0, 4095, np.uint16, ".png"),
        (7200, 9000, np.uint16, ".tiff"),
        (7200, 9000, np.uint16, ".png"),
        (100, 1100, np.uint16, ".pgm"),
        (0, 65535, np.uint16, ".png"),
        (0.0, 1.0, np.float32, ".tiff"),
        (270.0, 310.0, np.float32, ".tiff"),
        (-20.0, 3.0, np.float32, ".tiff"),
    ],
)
def test_deep_pictures_show_the_range_of_the_sequence(tmp_path, low, high, dtype, suffix):
    scene = deep_scene()
    scene[2:] *= 0.5  # a dark part stays darker than the rest: one range for all
    values = low + scene * (high - low)
    values = np.rint(values).astype(dtype) if dtype == np.uint16 else values.astype(dtype)
    video = Video(store(tmp_path / "deep", values, suffix))
    eight = scene[..., None].repeat(3, -1)
    assert np.abs(video.read(range(4)).numpy() - eight).max() < 0.02
    (note,) = video.notes
    assert "full range" in note or "the range of the whole sequence" in note
    assert ("full range" in note) == (high in (65535, 1.0))


def test_dead_pixels_and_missing_values_do_not_decide_the_range(tmp_path):
    values = (7200 + deep_scene() * 1800).astype(np.float32)
    values[0, 3, 3], values[1, 5, 5], values[2, 7, 7], values[3, 9, 9] = 65535, np.nan, -np.inf, np.inf
    video = Video(store(tmp_path / "deep", values, ".tiff"))
    read = video.read(range(4)).numpy()
    assert read.std() > 0.2
    assert read[1, 5, 5].max() == read[2, 7, 7].max() == 0
    assert read[3, 9, 9].min() == 1


def test_the_range_can_be_chosen_and_stays_when_a_part_is_read_again(tmp_path):
    from geo4d.video.io import reopen

    values = np.rint(deep_scene() * 4095).astype(np.uint16)
    values[0] //= 4
    folder = store(tmp_path / "deep", values)
    chosen = Video(folder, value_range=(0, 8190))
    assert abs(float(chosen.read([3]).max()) - 0.5) < 0.01
    assert "0 to 8190" in chosen.notes[0]
    whole = Video(folder, stride=3)
    again = reopen(folder, whole.reading, int(whole.source_frames.max()) + 1)
    assert again.sha256() == whole.sha256()
    assert np.array_equal(again.read([0]), whole.read([0]))
    with pytest.raises(ValueError, match="LOW < HIGH"):
        Video(folder, value_range=(5, 5))


def test_one_value_everywhere_is_said(tmp_path):
    video = Video(store(tmp_path / "deep", np.full((2, 8, 8), 300, np.uint16)))
    assert float(video.read([0]).max()) == 0
    assert "the one value 300" in video.notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_with_alpha_is_grey_over_black(tmp_path, dtype):
    most = np.iinfo(dtype).max
    grey = (picture()[..., 0].astype(np.int64) * most // 255).astype(dtype)
    alpha = np.full_like(grey, most)
    alpha[:, :10] = 0
    path = tmp_path / "a.png"
    if dtype == np.uint8:
        Image.fromarray(np.stack([grey, alpha], -1)).save(path)
    else:
        cv2.imwrite(str(path), np.stack([grey, grey, grey, alpha], -1))
    read = Video(path).read([0])[0].numpy()
    assert read[:, :10].max() == 0
    assert np.abs(read[:, 10:] - picture()[:, 10:, :1] / 255).max() < 0.01


def test_colour_of_eight_bits_is_not_touched():
    image = picture()
    assert np.array_equal(to_colour(image, None), image)
    assert np.array_equal(to_colour(image, (0.0, 10.0)), image)


# Files that are not whole ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm", ".pgm"])
def test_cut_pictures_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert cv2.imwrite(str(path), image[..., 0] if suffix == ".pgm" else image)
    assert PictureFile(path).num_pages == 1
    whole = path.read_bytes()
    for keep in (0.95, 0.6, 0.3):
        path.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(InputError):
            PictureFile(path)


def test_headers_with_flipped_bytes_never_crash(tmp_path):
    generator = np.random.default_rng(0)
    images = [Image.fromarray(frame) for frame in moving(3)]
    for name, options in (("a.webp", {"lossless": True}), ("a.png", {}), ("a.tif", {})):
        path = tmp_path / name
        images[0].save(path, save_all=True, append_images=images[1:], **options)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for position in generator.integers(4, min(len(data), 400), 3):
                data[position] ^= int(generator.integers(1, 256))
            path.write_bytes(data)
            try:
                frames = FrameFiles([path])
                for t in range(min(frames.num_frames, 4)):
                    frames.read(t)
            except InputError:
                pass
