"""Picture files against Pillow, libwebp and FFmpeg, which share no code with OpenCV or with our headers."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from geo4d.errors import InputError
from geo4d.video.frames import FrameFiles
from geo4d.video.io import Video
from geo4d.video.pictures import PictureFile, to_colour
from tests.support.images import moving, picture, save


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


@pytest.mark.parametrize("value", [0, 9, 777])
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path, value):
    assert PictureFile(save(tmp_path / "a.png", picture(), value)).pages[0].size == (24, 40)


def test_pages_inside_a_folder_are_stated(tmp_path):
    pages = [Image.fromarray(picture()) for _ in range(3)]
    for t in range(2):
        pages[0].save(tmp_path / f"{t}.tif", save_all=True, append_images=pages[1:])
    video = Video(tmp_path)
    assert video.num_frames == 2
    assert any("only the first page" in note and "0.tif (3)" in note for note in video.notes)
    (tmp_path / "1.tif").unlink()
    assert Video(tmp_path).num_frames == 3


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
