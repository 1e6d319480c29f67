"""Pictures from bags: every encoding against its rule written here, topics, cameras, times, damage."""

from pathlib import Path

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.bags import Bag
from geo4d.video.bags import BagFrames, choose_topic, find_camera
from geo4d.video.io import Video, reopen
from tests.support.bags import (
    KINDS,
    START_NS,
    camera_info,
    compressed_image,
    raw_image,
    version_of,
    write_bag,
)

SIZE = (8, 12)
STEP_NS = 50_000_000


def rgb(t):
    """Blocks of 2x2 pixels of one colour, so that colour filters and half-width chroma lose nothing inside."""
    small = np.random.default_rng(t).integers(60, 200, (SIZE[0] // 4, SIZE[1] // 4, 3), np.uint8)
    return np.repeat(np.repeat(small, 4, 0), 4, 1)


def stamps(num):
    return [START_NS + t * STEP_NS for t in range(num)]


def pictures(version, num=6, topic="/cam/image_raw", make=None):
    make = make or (lambda stamp, t: raw_image(version, stamp, rgb(t), "rgb8"))
    return [(topic, stamp + 999, make(stamp, t)) for t, stamp in enumerate(stamps(num))]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_in_any_order_with_the_stamps_of_their_headers(tmp_path, kind):
    path = write_bag(tmp_path / "bag", kind, pictures(version_of(kind)))
    with Video(path) as video:
        assert video.num_frames == 6
        assert video.source_size == SIZE
        np.testing.assert_allclose(video.times_s, np.array(stamps(6)) / 1e9, rtol=0, atol=3e-7)
        for t in (0, 1, 4, 2, 5, 0):
            np.testing.assert_array_equal((video.read([t])[0].numpy() * 255).round(), rgb(t))
        assert video.fps == pytest.approx(20, rel=1e-4)
        assert "6 of 6 pictures of /cam/image_raw, frame of reference cam" in video.notes[0]
        again = reopen(path, video.reading, 6)
        assert again.sha256() == video.sha256()
        np.testing.assert_array_equal(again.read([3]), video.read([3]))
        again.close()
    with Video(path, start=1, stop=4, stride=2) as video:
        np.testing.assert_array_equal((video.read([1])[0].numpy() * 255).round(), rgb(3))


def mosaic(pattern, picture):
    """The rule of a colour filter: which channel each pixel of a 2x2 cell keeps."""
    result = np.zeros(SIZE, np.uint8)
    for k, channel in enumerate(pattern):
        y, x = divmod(k, 2)
        result[y::2, x::2] = picture[y::2, x::2, "rgb".index(channel)]
    return result


def uyvy(picture, luma_first):
    """BT.601 in video range; one chroma pair for two pixels."""
    r, g, b = np.moveaxis(picture.astype(float), -1, 0)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    chroma = np.where(np.arange(SIZE[1]) % 2 == 0, u, v)
    return np.stack([y, chroma] if luma_first else [chroma, y], -1).round().astype(np.uint8)


GREY = np.repeat(rgb(3)[..., :1], 3, -1)
STORED = {
    "mono8": (rgb(3)[..., 0], GREY, 0),
    "rgb8": (rgb(3), rgb(3), 0),
    "bgr8": (rgb(3)[..., ::-1], rgb(3), 0),
    "rgba8": (np.dstack([rgb(3), np.full(SIZE, 7, np.uint8)]), rgb(3), 0),
    "bgra8": (np.dstack([rgb(3)[..., ::-1], np.full(SIZE, 7, np.uint8)]), rgb(3), 0),
    **{f"bayer_{p}8": (mosaic(p, rgb(3)), rgb(3), 1) for p in ("rggb", "bggr", "gbrg", "grbg")},
    "yuv422": (uyvy(rgb(3), False), rgb(3), 3),
    "yuv422_yuy2": (uyvy(rgb(3), True), rgb(3), 3),
}


@pytest.mark.parametrize("encoding", STORED)
@pytest.mark.parametrize("padding", [0, 5])
def test_raw_encodings(tmp_path, encoding, padding):
    stored, expected, tolerance = STORED[encoding]
    make = lambda stamp, t: raw_image(2, stamp, stored, encoding, padding)  # noqa: E731
    frames = BagFrames(write_bag(tmp_path / "bag", "mcap", pictures(2, 1, make=make)))
    found = frames.read(0).astype(int)
    frames.close()
    inner = np.zeros(SIZE, bool)  # colours of a filter are mixed at the edges of blocks
    for y in range(1, SIZE[0], 4):
        for x in range(1, SIZE[1], 4):
            inner[y : y + 2, x : x + 2] = True
    where = inner if encoding.startswith("bayer") else np.ones(SIZE, bool)
    where[[0, -1]] = where[:, [0, -1]] = not encoding.startswith("bayer")
    assert np.abs(found - expected)[where].max() <= tolerance


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".jpg", 9)])
@pytest.mark.parametrize("kind", ["ros1", "mcap"])
def test_compressed_pictures(tmp_path, kind, suffix, tolerance):
    make = lambda stamp, t: compressed_image(version_of(kind), stamp, rgb(t), suffix)  # noqa: E731
    made = pictures(version_of(kind), 3, "/cam/image_raw/compressed", make)
    with Video(write_bag(tmp_path / "bag", kind, made)) as video:
        assert np.abs(video.read([2])[0].numpy() * 255 - rgb(2)).mean() <= tolerance + 1e-4


def test_an_address_is_refused_in_python_too():
    with pytest.raises(InputError, match=r"download it first$"):
        Video("https://example.com/drive.mcap")
    for source in ("s3://bucket/drive.mcap", Path("s3://bucket/drive.mcap")):  # as the command line gives it
        with pytest.raises(InputError, match=r"s3://bucket/drive\.mcap; download it first; 'geo4d batch'"):
            Video(source)


def test_of_several_topics_one_must_be_named(tmp_path):
    depth = lambda stamp, t: raw_image(2, stamp, np.full(SIZE, 1000, np.uint16), "16UC1")  # noqa: E731
    made = pictures(2, 2, "/depth/image", depth) + pictures(2, 2, "/left/image_raw")
    with Video(write_bag(tmp_path / "one", "mcap", made)) as video:
        assert video.reading["topic"] == "/left/image_raw"  # depth is no picture
    path = write_bag(tmp_path / "two", "mcap", made + pictures(2, 3, "/right/image_raw"))
    with pytest.raises(
        InputError, match=r"2 topics; choose one with --topic: /left/image_raw \(2 pictures, rgb8\), /right"
    ):
        Video(path)
    with Video(path, topic="right/image_raw") as video:
        assert video.num_frames == 3
    with pytest.raises(InputError, match="got '/front'; there are: "):
        Video(path, topic="/front")
    with pytest.raises(InputError, match="encoded as mono8"):
        Video(path, topic="/depth/image")
    only = write_bag(tmp_path / "depth", "mcap", pictures(2, 2, "/depth/image", depth))
    with pytest.raises(InputError, match="no pictures that geo4d reads: /depth/image"):
        Video(only)
    bare = write_bag(
        tmp_path / "bare", "mcap", [("/cam/camera_info", 1, camera_info(2, 1, SIZE, (1, 1, 0, 0)))]
    )
    with pytest.raises(InputError, match=r"found /cam/camera_info \(sensor_msgs/msg/CameraInfo\)"):
        Video(bare)
    with pytest.raises(ValueError, match="with a topic"):
        Video(tmp_path, topic="/x")
    with pytest.raises(ValueError, match="states its own times"):
        Video(only, topic="/depth/image", fps=3)


@pytest.mark.parametrize("kind", ["ros1", "mcap"])
@pytest.mark.parametrize("topic", ["/cam/image_raw", "/cam/image_raw/compressed"])
def test_the_camera_info_beside_the_pictures(tmp_path, kind, topic):
    version = version_of(kind)
    make = (lambda s, t: compressed_image(version, s, rgb(t))) if topic.endswith("compressed") else None
    info = camera_info(version, START_NS, SIZE, (10, 11, 5.5, 3.5), (-0.2, 0.05, 0.001, -0.002, 0.0))
    other = camera_info(version, START_NS, SIZE, (99, 99, 1, 1))
    made = [
        ("/cam/camera_info", START_NS, info),
        ("/z/camera_info", START_NS, other),
        *pictures(version, 2, topic, make),
    ]
    found = find_camera(write_bag(tmp_path / "bag", kind, made), None)
    assert found.intrinsics == (10, 11, 6, 4)  # centres at +0.5
    assert found.size == SIZE
    assert found.distortion.model == "radial-tangential"
    assert found.distortion.coefficients == (-0.2, 0.05, 0.001, -0.002, 0.0)
    assert "/cam/camera_info" in found.words


@pytest.mark.parametrize(
    ("topic", "info", "expected"),
    [
        ("/cam/image_rect", {"D": (0.1,) * 5, "P": (20, 21, 5, 3)}, ((20, 21, 5.5, 3.5), None)),
        ("/cam/image_raw", {"D": (0.0,) * 5}, ((10, 11, 6, 4), None)),
        ("/cam/image_raw", {"D": ()}, ((10, 11, 6, 4), None)),
        ("/cam/image_raw", {"D": (0.0,) * 4, "model": "equidistant"}, ((10, 11, 6, 4), "fisheye")),
        (
            "/cam/image_raw",
            {"D": (0.1,) * 8, "model": "rational_polynomial"},
            ((10, 11, 6, 4), "radial-tangential"),
        ),
        ("/cam/image_raw", {"K": (0, 0, 0, 0)}, (None, None)),
        ("/cam/image_raw", None, (None, None)),
    ],
)
def test_kinds_of_cameras(tmp_path, topic, info, expected):
    made = pictures(2, 1, topic)
    if info is not None:
        K = info.pop("K", (10, 11, 5.5, 3.5))
        made.append(("/cam/camera_info", START_NS, camera_info(2, START_NS, SIZE, K, **info)))
    found = find_camera(write_bag(tmp_path / "bag", "mcap", made), None)
    assert found.intrinsics == expected[0]
    assert (None if found.distortion is None else found.distortion.model) == expected[1]
    assert found.words


def test_an_unknown_model_of_distortion_is_refused(tmp_path):
    info = camera_info(2, START_NS, SIZE, (10, 11, 5.5, 3.5), (0.1,) * 4, "thin_prism")
    made = [*pictures(2, 1), ("/cam/camera_info", START_NS, info)]
    with pytest.raises(InputError, match="--distortion none"):
        find_camera(write_bag(tmp_path / "bag", "mcap", made), None)


def test_times_of_the_recording_where_the_stamps_say_nothing(tmp_path):
    made = [
        (topic, time, raw_image(2, 0, rgb(t), "rgb8")) for t, (topic, time, _) in enumerate(pictures(2, 3))
    ]
    with Video(write_bag(tmp_path / "bag", "mcap", made)) as video:
        np.testing.assert_allclose(np.diff(video.times_s), 0.05, atol=1e-6)
        assert "those of the recording" in video.notes[0]
    same = [(topic, START_NS, message) for topic, _, message in made]
    with pytest.raises(InputError, match="neither stamps nor recording"):
        Video(write_bag(tmp_path / "same", "mcap", same))


def test_messages_recorded_at_one_moment_are_told_apart(tmp_path):
    made = [(topic, START_NS + 10**9, message) for topic, _, message in pictures(2, 5)]
    with Video(write_bag(tmp_path / "bag", "mcap", made)) as video:
        for t in (4, 2, 3, 0):
            np.testing.assert_array_equal((video.read([t])[0].numpy() * 255).round(), rgb(t))


def test_a_damaged_picture_ends_the_readable_part(tmp_path):
    made = pictures(2, 4, make=lambda stamp, t: compressed_image(2, stamp, rgb(t)))
    whole = made[2][2]
    made[2] = (*made[2][:2], type(whole)(header=whole.header, format="png", data=whole.data[:-20]))
    path = write_bag(tmp_path / "bag", "mcap", made)
    with pytest.raises(InputError, match=r"2 of 4 frames readable .picture 2 of /cam"):
        Video(path)
    with Video(path, allow_partial=True) as video:
        assert video.num_frames == 2
    other = pictures(2, 3)
    other[1] = (*other[1][:2], raw_image(2, START_NS + 5, np.zeros((4, 4), np.uint8), "mono8"))
    with pytest.raises(InputError, match="is 4 x 4, the first is 12 x 8"):
        Video(write_bag(tmp_path / "sizes", "mcap", other))
    short = pictures(2, 1)
    short[0][2].step = 99
    with pytest.raises(InputError, match="need more"):
        Video(write_bag(tmp_path / "short", "mcap", short), topic="/cam/image_raw")


def test_a_topic_that_is_listed_and_holds_nothing_is_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(Bag, "messages", lambda bag, topic, start_ns=None: iter(()))
    with Bag(write_bag(tmp_path / "bag", "mcap", pictures(2))) as bag:
        for wanted in (None, "/other"):
            with pytest.raises(InputError, match="lists messages on /cam/image_raw and holds none"):
                choose_topic(bag, wanted)


@pytest.mark.parametrize(
    "K", [(1e-300, 1e-300, 4, 6), (1e308, 1e308, 4, 6), (30, 30, 1e9, 6), (np.nan, 30, 4, 6)]
)
def test_a_camera_info_that_means_nothing_is_not_used(tmp_path, K):
    made = [*pictures(2), ("/cam/camera_info", START_NS, camera_info(2, START_NS, SIZE, K))]
    found = find_camera(write_bag(tmp_path / "bag", "mcap", made), None)
    assert found.intrinsics is None
    assert "not calibrated" in found.words
