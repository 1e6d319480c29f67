"""Video against files that this test writes: what goes in must come out, and what is broken must say so."""

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.video.containers import VideoFile
from geo4d.video.frames import list_frames
from geo4d.video.io import Video, fit_size
from geo4d.video.pictures import PictureFile


def pictures(num_frames, height=48, width=64):
    """Frames that differ by a bright bar that wanders and by their level."""
    frames = np.full((num_frames, height, width, 3), 40, np.uint8)
    for t in range(num_frames):
        frames[t, :, (t * 3) % width : (t * 3) % width + 4] = (220, 60 + t % 100, 30)
        frames[t, : height // 4, : width // 4] = (t * 7) % 250
    return frames


def encode(
    path, frames, codec="mpeg4", fps=25, pix_fmt="yuv420p", gop=12, times=None, container=None, **options
):
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        stream.bit_rate = 4_000_000
        stream.options = {key: str(value) for key, value in options.items()}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for t, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[t], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def rotate_in_header(path, degrees):
    """Write a rotation into the track header of an MP4 file, as phones do."""
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4 + 40
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one = 1 << 16
    data[start : start + 36] = struct.pack(
        ">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)


@pytest.mark.parametrize("num_frames", [1, 2, 15, 17])
def test_every_length_comes_back_whole(tmp_path, num_frames):
    frames = pictures(num_frames)
    video = Video(encode(tmp_path / "clip.mp4", frames))
    assert video.num_frames == num_frames
    assert video.size == (48, 64)
    np.testing.assert_allclose(video.times_s, np.arange(num_frames) / 25, atol=1e-3)
    decoded = video.read(range(num_frames)).numpy()
    assert np.abs(decoded - frames / 255).mean() < 0.03


def test_any_order_gives_the_same_pictures_as_front_to_back(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(200, 32, 32), gop=20)
    in_order = torch.stack(list(Video(path).frames()))
    order = [150, 3, 199, 0, 151, 90, 89, 20]
    for t in order:
        assert torch.equal(Video(path).read([t])[0], in_order[t])
    assert torch.equal(Video(path).read(order), in_order[order])


def test_a_stream_without_usable_times_is_read_from_the_front(tmp_path):
    path = encode(tmp_path / "clip.avi", pictures(100, 32, 32), gop=100)
    in_order = torch.stack(list(Video(path).frames()))
    assert torch.equal(Video(path).read([80, 10]), in_order[[80, 10]])


def test_range_stride_and_size(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(30, 48, 96))
    video = Video(path, start=5, stop=25, stride=4, max_size=48)
    assert video.source_frames.tolist() == [5, 9, 13, 17, 21]
    np.testing.assert_allclose(video.times_s, np.array([5, 9, 13, 17, 21]) / 25, atol=1e-3)
    assert video.size == (24, 48)
    assert video.source_size == (48, 96)
    assert abs(video.fps - 25 / 4) < 1e-6
    assert video.read([0, 4]).shape == (2, 24, 48, 3)
    assert fit_size((100, 2000), 64) == (3, 64)


def test_variable_frame_rate_keeps_the_times_of_the_file(tmp_path):
    times = np.cumsum([0, *([33] * 8), 400, *([33] * 8)]).tolist()
    video = Video(encode(tmp_path / "clip.mkv", pictures(len(times)), times=times))
    np.testing.assert_allclose(video.times_s, np.array(times) / 1000, atol=1e-3)
    assert abs(video.fps - 30.3) < 0.5


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_in_the_header_turns_the_picture(tmp_path, degrees):
    frames = pictures(3)
    plain = encode(tmp_path / "plain.mp4", frames)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(plain.read_bytes())
    rotate_in_header(turned, degrees)
    expected = torch.rot90(Video(plain).read(range(3)), -degrees // 90, dims=(1, 2))
    video = Video(turned)
    assert video.size == tuple(expected.shape[1:3])
    assert torch.equal(video.read(range(3)), expected)


def test_ten_bits_odd_sizes_alpha_and_wide_pixels(tmp_path):
    deep = encode(tmp_path / "deep.mkv", pictures(3, 50, 66), codec="ffv1", pix_fmt="yuv420p10le")
    assert np.abs(Video(deep).read([1])[0].numpy() - pictures(3, 50, 66)[1] / 255).mean() < 0.03
    odd = encode(tmp_path / "odd.mkv", pictures(3, 33, 47), codec="ffv1", pix_fmt="bgr0")
    assert torch.equal(Video(odd).read([2])[0], torch.from_numpy(pictures(3, 33, 47)[2]).float() / 255)

    clear = tmp_path / "clear.mkv"
    with av.open(str(clear), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgra"
        rgba = np.full((16, 16, 4), 200, np.uint8)
        rgba[:8, :, 3] = 0
        rgba[8:, :, 3] = 255
        output.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        output.mux(stream.encode())
    picture = Video(clear).read([0])[0]
    assert picture[:8].max() == 0
    assert (picture[8:] - 200 / 255).abs().max() < 1e-6

    wide = tmp_path / "wide.y4m"
    wide.write_bytes(b"YUV4MPEG2 W32 H16 F25:1 Ip A2:1 C444\n" + b"FRAME\n" + bytes(range(256)) * 6)
    assert Video(wide).size == (16, 64)


def test_truncated_clip_states_how_much_is_readable(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(90), movflags="faststart")
    with av.open(str(path)) as source:  # the index in front, as cut downloads have it
        output = av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"})
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
        output.close()
    data = (tmp_path / "front.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(InputError, match=r"\d+ of 90 frames readable.*allow-partial"):
        Video(cut)
    video = Video(cut, allow_partial=True)
    assert 20 < video.num_frames < 90
    assert video.expected_frames == 90
    assert video.damage
    whole = Video(tmp_path / "front.mp4")
    assert torch.equal(video.read([0, 19]), whole.read([0, 19]))
    assert Video(cut, stop=10).num_frames == 10  # the damage lies beyond what is asked for


def test_truncated_clip_without_a_frame_count(tmp_path):
    path = encode(tmp_path / "clip.mkv", pictures(60), gop=1)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(InputError, match="frames readable"):
        Video(path)


def test_flipped_bytes_never_pass_silently_nor_crash(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(40), gop=10)
    whole = path.read_bytes()
    reference = Video(path).read(range(40))
    generator = np.random.default_rng(0)
    outcomes = {"refused": 0, "same length": 0}
    for _ in range(40):
        data = bytearray(whole)
        for position in generator.integers(0, len(data), 20):
            data[position] ^= int(generator.integers(1, 256))
        path.write_bytes(data)
        try:
            video = Video(path)
            outcomes["same length"] += 1
            assert video.num_frames <= 41
            video.read([0])
        except InputError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 20
    assert reference.shape[0] == 40


def test_playlists_open_no_other_file(tmp_path, monkeypatch):
    encode(tmp_path / "other.mp4", pictures(5))
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args) or real(*args, **kwargs))
    (tmp_path / "a.mp4").write_bytes(b"ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(InputError):
        Video(tmp_path / "a.mp4")
    assert not opened


def test_audio_only_and_missing(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with pytest.raises(InputError, match="no video stream, only audio"):
        Video(path)
    with pytest.raises(InputError, match="does not exist"):
        Video(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="holds no pictures"):
        Video(tmp_path)
    with pytest.raises(InputError, match="regular file"):
        Video("/dev/zero")


def test_huge_declared_pictures_are_refused_before_they_are_decoded(tmp_path):
    path = encode(tmp_path / "huge.mkv", pictures(1, 64, 64), codec="ffv1", pix_fmt="bgr0")
    data = bytearray(path.read_bytes())
    for element in (b"\xb0", b"\xba"):  # PixelWidth, PixelHeight
        at = data.find(element + b"\x81\x40")
        assert at > 0
        data[at : at + 3] = element + b"\x81\x7f"
    path.write_bytes(data)
    import geo4d.video.containers as containers

    limit, containers.MAX_PIXELS = containers.MAX_PIXELS, 100 * 100
    try:
        with pytest.raises(InputError):
            Video(path)
    finally:
        containers.MAX_PIXELS = limit

    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 12000, 12000, 8, 2, 0, 0, 0)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(header + b"\0" * 100)
    with pytest.raises(InputError, match="12000 x 12000"):
        Video(tmp_path / "frames")


def test_folder_is_read_in_natural_order_with_exif(tmp_path):
    frames = pictures(12)
    for t, picture in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"frame{t}.png"), picture[..., ::-1])
    (tmp_path / "notes.txt").write_text("not a frame")
    assert [p.name for p in list_frames(tmp_path).files][1:3] == ["frame1.png", "frame2.png"]
    video = Video(tmp_path, fps=10)
    assert torch.equal(video.read(range(12)), torch.from_numpy(frames).float() / 255)
    np.testing.assert_allclose(video.times_s, np.arange(12) / 10)

    portrait = tmp_path / "portrait.jpg"
    ok, data = cv2.imencode(".jpg", pictures(1)[0])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0"
    raw = data.tobytes()
    portrait.write_bytes(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:])
    assert ok
    assert Video(portrait).size == (64, 48)
    assert Video(portrait).read([0]).shape == (1, 64, 48, 3)


def test_damaged_picture_in_a_folder(tmp_path):
    for t, picture in enumerate(pictures(6)):
        cv2.imwrite(str(tmp_path / f"{t}.jpg"), picture)
    for name, keep in (("4.jpg", 0.5),):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match="4 of 6 frames readable"):
        Video(tmp_path)
    assert Video(tmp_path, allow_partial=True).num_frames == 4
    assert Video(tmp_path, stop=3).num_frames == 3


def test_flipped_byte_in_png_is_found(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), pictures(1)[0])
    data = bytearray((tmp_path / "0.png").read_bytes())
    data[len(data) // 2] ^= 8
    (tmp_path / "0.png").write_bytes(data)
    with pytest.raises(InputError, match="check sum"):
        Video(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm"])
def test_sizes_are_read_from_headers(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    cv2.imwrite(str(path), pictures(1, 37, 53)[0])
    assert PictureFile(path).pages[0].size == (37, 53)
    assert Video(path).size == (37, 53)


def test_arrays(tmp_path):
    frames = pictures(5)
    video = Video(frames, fps=5)
    assert torch.equal(video.read([4, 0]), torch.from_numpy(frames[[4, 0]]).float() / 255)
    assert Video(torch.from_numpy(frames).float() / 255).sha256() != video.sha256()
    with pytest.raises(ValueError, match=r"\[T, H, W, 3\]"):
        Video(frames[..., :2])
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        Video(frames.astype(np.float32)).read([0])


def test_same_content_has_the_same_hash(tmp_path):
    a, b = encode(tmp_path / "a.mp4", pictures(4)), tmp_path / "b.mp4"
    b.write_bytes(a.read_bytes())
    assert Video(a).sha256() == Video(b).sha256()


def test_memory_of_the_cache_is_bounded(tmp_path, monkeypatch):
    import geo4d.video.io as io

    monkeypatch.setattr(io, "CACHE_BYTES", 48 * 64 * 3 * 8)
    video = Video(encode(tmp_path / "clip.mp4", pictures(60)))
    for _ in video.frames():
        pass
    assert len(video._cache) <= 8


def test_a_frame_read_at_two_sizes_is_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr("geo4d.video.io.CACHE_FRAMES", 1)
    decoded = []
    read = VideoFile.read
    monkeypatch.setattr(VideoFile, "read", lambda self, index: decoded.append(index) or read(self, index))
    with Video(encode(tmp_path / "clip.mp4", pictures(6))) as video:
        for t in range(6):
            whole, small = video.read([t]), video.read([t], (16, 24))
            assert whole.shape != small.shape
    assert decoded == list(range(6))


def test_index_out_of_range(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(3))
    with pytest.raises(IndexError):
        Video(path).read([3])
    with pytest.raises(IndexError):
        VideoFile(path).read(-1)
    with pytest.raises(InputError, match="no frame from 3 on"):
        Video(path, start=3)


def test_what_was_done_to_the_pictures_is_said(tmp_path, caplog):
    path = encode(tmp_path / "clip.mkv", pictures(3), codec="mpeg2video", flags="+ildct+ilme")
    video = Video(path)
    assert video.notes == ("3 of 3 frames are interlaced; deinterlaced (bwdif)",)
    assert "interlaced" in caplog.text
    assert Video(pictures(3)).notes == ()


def test_a_source_that_changes_is_noticed(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(4))
    video = Video(path)
    video.sha256()
    video.check_unchanged()
    path.touch()
    video.check_unchanged()  # the same content
    data = path.read_bytes()
    other = tmp_path / "other.mp4"
    other.write_bytes(data)
    other.replace(path)
    video.check_unchanged()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=r"clip.mp4 changed while it was worked on"):
        video.check_unchanged()
    path.unlink()
    with pytest.raises(InputError, match="changed while"):
        video.check_unchanged()

    folder = tmp_path / "frames"
    folder.mkdir()
    for t, picture in enumerate(pictures(3)):
        cv2.imwrite(str(folder / f"{t}.png"), picture)
    video = Video(folder)
    video.sha256()
    (folder / "notes.txt").write_text("beside the pictures")
    video.check_unchanged()
    cv2.imwrite(str(folder / "1.png"), pictures(9)[8])
    with pytest.raises(InputError, match=r"1.png changed"):
        video.check_unchanged()
    with pytest.raises(InputError, match=r"1.png changed"):
        Video(folder) and video.sha256()
    Video(pictures(3)).check_unchanged()


def test_known_intrinsics_mean_the_picture_as_it_is_shown(tmp_path):
    """A mark at a pixel of the upright picture with square pixels has the ray that these intrinsics give it."""
    from geo4d.config import RunConfig
    from geo4d.run.inputs import known_matrix

    frames = np.full((2, 48, 64, 3), 30, np.uint8)
    frames[:, 8:12, 40:44] = 250  # coded: centre at x 42, y 10
    path = encode(tmp_path / "clip.mp4", frames, pix_fmt="yuv420p")
    rotate_in_header(path, 90)
    clip = Video(path)
    assert clip.source_size == (64, 48)
    shown = clip.read([0])[0].mean(-1)
    row, column = np.argwhere(shown.numpy() > 0.6).mean(0) + 0.5
    # A quarter turn to the right: coded (x, y) is shown at (48 - y, x).
    np.testing.assert_allclose((column, row), (48 - 10, 42), atol=0.6)
    config = RunConfig(intrinsics=(50.0, 60.0, 24.0, 32.0))
    matrix = known_matrix((32, 24), clip, config)  # maps of half the size
    np.testing.assert_allclose(matrix, [[25, 0, 12], [0, 30, 16], [0, 0, 1]])
    ray = torch.linalg.inv(matrix) @ torch.tensor([float(column) / 2, float(row) / 2, 1.0])
    np.testing.assert_allclose(ray, [(38 - 24) / 50, (42 - 32) / 60, 1], atol=0.02)
