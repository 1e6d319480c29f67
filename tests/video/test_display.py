"""What a stream says about its pictures, against the formulas of the standards written out here."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.video.containers import VideoFile
from geo4d.video.display import hdr_to_sdr, source_colours, square_width, to_rgb
from tests.video.clips import encode, pictures

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def expected_rgb(y, u, v, matrix, full, bits):
    """RGB of one colour, by the definition of Y'CbCr."""
    kr, kb = WEIGHTS[matrix]
    unit = 2 ** (bits - 8)
    if full:
        luma, blue, red = (y / (2**bits - 1), *((c - 128 * unit) / (2**bits - 1) for c in (u, v)))
    else:
        luma, blue, red = ((y - 16 * unit) / (219 * unit), *((c - 128 * unit) / (224 * unit) for c in (u, v)))
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return 255 * np.clip([r, g, b], 0, 1)


def flat_frame(y, u, v, pixel_format, bits, height=48, width=64):
    frame = av.VideoFrame(width, height, pixel_format)
    for plane, value in zip(frame.planes, (y, u, v)):
        dtype = np.uint8 if bits == 8 else np.uint16
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value, dtype).tobytes())
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize(
    ("pixel_format", "bits"), [("yuv420p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv422p10le", 10)]
)
def test_range_and_matrix_that_are_stated(pixel_format, bits, matrix, full):
    unit = 2 ** (bits - 8)
    for colour in ((120, 90, 170), (60, 150, 100), (180, 120, 140)):
        y, u, v = (unit * c for c in colour)
        frame = flat_frame(y, u, v, pixel_format, bits)
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        picture = to_rgb(frame, None, 1)
        assert np.abs(picture[20, 20] - expected_rgb(y, u, v, matrix, full, bits)).max() < 3


@pytest.mark.parametrize(
    ("height", "width", "matrix"),
    [(480, 640, 5), (576, 720, 5), (718, 1278, 5), (720, 960, 1), (544, 1280, 1), (1280, 720, 1)],
)
def test_untagged_pictures_have_the_matrix_of_their_size(height, width, matrix):
    frame = flat_frame(120, 90, 170, "yuv420p", 8, height, width)
    assert source_colours(frame) == (matrix, 1)
    assert np.abs(to_rgb(frame, None, 2)[7, 9] - expected_rgb(120, 90, 170, matrix, False, 8)).max() < 3


def test_full_range_by_pixel_format_and_grey():
    assert source_colours(flat_frame(120, 90, 170, "yuvj420p", 8))[1] == 2
    grey = flat_frame(200, 0, 0, "gray", 8)
    assert np.abs(to_rgb(grey, None, 2).astype(int) - 200).max() <= 1


def test_a_matrix_that_cannot_be_applied_is_refused():
    frame = flat_frame(120, 90, 170, "yuv420p", 8)
    frame.colorspace = 8
    with pytest.raises(InputError, match="YCgCo"):
        to_rgb(frame, None, 1)


def write_matrix(path, a, b, c, d):
    """Put a display matrix into the track header of an MP4 file: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4 + 40
    one = 1 << 16
    numbers = (round(a * one), round(b * one), 0, round(c * one), round(d * one), 0, 0, 0, 1 << 30)
    data[start : start + 36] = struct.pack(">9i", *numbers)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "matrix",
    [
        (a * sx, 0, 0, a * sy) if straight else (0, a * sx, a * sy, 0)
        for straight in (True, False)
        for a, sx, sy in ((1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1))
    ],
)
def test_every_turn_and_mirror_puts_each_pixel_where_the_matrix_says(tmp_path, matrix):
    path = encode(tmp_path / "clip.mp4", pictures(2, 24, 40))
    coded = VideoFile(path).read(1)
    write_matrix(path, *matrix)
    video = VideoFile(path)
    shown = video.read(1)
    assert video.size == shown.shape[:2]
    a, b, c, d = matrix
    height, width = coded.shape[:2]
    corners = [(a * x + c * y, b * x + d * y) for x in (0, width) for y in (0, height)]
    left, top = (min(values) for values in zip(*corners))
    for y, x in ((0, 0), (3, 17), (23, 39), (11, 5)):
        centre = (x + 0.5, y + 0.5)
        column = a * centre[0] + c * centre[1] - left
        row = b * centre[0] + d * centre[1] - top
        assert np.array_equal(shown[int(row), int(column)], coded[y, x])


def test_a_display_matrix_of_another_angle_is_refused(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(2))
    write_matrix(path, 0.866, 0.5, -0.5, 0.866)
    with pytest.raises(InputError, match="turns the picture by 30 degrees; expected quarter turns"):
        VideoFile(path)


def test_shapes_of_pixels(tmp_path):
    assert square_width(720, Fraction(64, 45)) == 1024
    assert square_width(100, None) == square_width(100, Fraction(0, 1)) == 100
    path = tmp_path / "clip.y4m"
    for ratio, width in (("4:1", 128), ("1:4", 8), ("0:0", 32)):
        path.write_bytes(f"YUV4MPEG2 W32 H16 F25:1 Ip A{ratio} C444\nFRAME\n".encode() + bytes(1536))
        assert VideoFile(path).read(0).shape == (16, width, 3)
    for ratio in ("9:2", "1:5"):
        path.write_bytes(f"YUV4MPEG2 W32 H16 F25:1 Ip A{ratio} C444\nFRAME\n".encode() + bytes(1536))
        with pytest.raises(InputError, match=f"pixels of the shape {ratio}; expected 1:4 to 4:1"):
            VideoFile(path)


def hdr_signal(sdr, transfer):
    """SDR shown with its white at 203 cd/m2, as a PQ or HLG signal of BT.2020 (the way that productions go)."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    light = 203 * (sdr / 255) ** 2.4 @ to_2020.T
    if transfer == 16:
        power = (light / 10_000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        display = light / 1000
        luminance = np.maximum(display @ [0.2627, 0.6780, 0.0593], 1e-9)
        scene = display * (luminance ** (1 / 1.2 - 1))[..., None]
        curve = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), curve)
    return np.rint(65535 * np.clip(signal, 0, 1)).astype(np.uint16)


@pytest.mark.parametrize("transfer", [16, 18])
def test_what_was_sdr_comes_back_from_hdr(transfer):
    rng = np.random.default_rng(0)
    sdr = rng.integers(0, 256, (40, 60, 3))
    back = hdr_to_sdr(hdr_signal(sdr, transfer), transfer).astype(int)
    middle = sdr.max(axis=-1) <= 243  # 90 % of white, as light
    assert np.abs(back - sdr)[middle].max() <= 3
    assert np.abs(back - sdr).max() <= 16
    greys = np.linspace(0, 65535, 500).astype(np.uint16)[:, None, None].repeat(3, 2)
    levels = hdr_to_sdr(greys, transfer)[:, 0]
    assert (np.diff(levels.astype(int), axis=0) >= 0).all()
    assert levels[0].max() == 0
    assert levels[-1].min() == 255


def ten_bit_frame(rgb):
    """[H, W, 3] RGB in [0, 1] as Y'CbCr of BT.2020, 10 bits, limited range."""
    kr, kb = WEIGHTS[9]
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    planes = (64 + 876 * luma, 512 + 448 * (blue - luma) / (1 - kb), 512 + 448 * (red - luma) / (1 - kr))
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], "yuv444p10le")
    for plane, values in zip(frame.planes, planes):
        padded = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        padded[:, : plane.width] = np.rint(values)
        plane.update(padded.tobytes())
    return frame


def test_an_hdr_clip_is_mapped_and_says_so(tmp_path):
    sdr = pictures(3, 48, 64)
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = 16, 9
        stream.codec_context.colorspace, stream.codec_context.color_range = 9, 1
        for picture in sdr:
            output.mux(stream.encode(ten_bit_frame(hdr_signal(picture, 16) / 65535)))
        output.mux(stream.encode())
    video = VideoFile(path)
    assert "HDR (PQ, BT.2020) mapped to SDR" in video.table.notes[0]
    assert np.abs(video.read(1).astype(int) - sdr[1]).mean() < 4


def woven(num_frames, top_first, height=64, width=96):
    """Frames whose two fields show a bar at two moments, and the picture of the first field's moment."""

    def bar(place):
        level = np.clip(1 - np.abs((np.arange(width) - place) % width - 12) / 10, 0, 1)
        return np.repeat((60 + 150 * level).astype(np.uint8)[None, :, None], height, 0).repeat(3, 2)

    truth, frames = [], []
    for t in range(num_frames):
        first, second = bar(4 * t), bar(4 * t + 2)
        frame = second.copy()
        frame[0 if top_first else 1 :: 2] = first[0 if top_first else 1 :: 2]
        truth.append(first)
        frames.append(frame)
    return np.stack(frames), np.stack(truth)


@pytest.mark.parametrize("top_first", [False, True])
@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts"])
def test_interlaced_frames_are_deinterlaced_wherever_reading_starts(tmp_path, name, top_first):
    frames, truth = woven(40, top_first)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=96, height=64, format="yuv420p", time_base=Fraction(1, 25))
    mark = graph.add("setfield", "tff" if top_first else "bff")
    sink = graph.add("buffersink")
    source.link_to(mark)
    mark.link_to(sink)
    graph.configure()
    marked = []
    for t, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = t, Fraction(1, 25)
        graph.vpush(frame)
        marked.append(graph.vpull())
    path = tmp_path / name
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 12
        stream.bit_rate, stream.options = 4_000_000, {"flags": "+ildct+ilme"}
        for frame in marked:
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    video = VideoFile(path)
    assert video.table.notes == ("40 of 40 frames are interlaced; deinterlaced (bwdif)",)
    assert video.num_frames == 40
    in_order = [video.read(t) for t in range(40)]
    error = np.abs(np.stack(in_order).astype(int) - truth).mean()
    assert error < 0.25 * np.abs(frames.astype(int) - truth).mean()
    for t in (39, 12, 13, 24, 30, 0):
        assert np.array_equal(video.read(t), in_order[t])
        assert np.array_equal(VideoFile(path).read(t), in_order[t])
    for lone in (
        encode(tmp_path / f"lone{name}", frames[:1], "mpeg2video", options={"flags": "+ildct+ilme"}),
    ):
        assert VideoFile(lone).read(0).shape == (64, 96, 3)
