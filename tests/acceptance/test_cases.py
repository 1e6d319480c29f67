"""Inputs that once went wrong, through the command line and the exports, with the right value of each.

They lie in ``cases/`` of the folder that GEO4D_SHARED names; each kind has tests of its own with made input beside the
code that it is about (``tests/video``, ``tests/export``), so that nothing here is looked at for the first time.
"""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.readers_of_targets import colmap, nerfstudio, ply

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cases(shared_data):
    folder = shared_data / "cases"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def geo4d(*words, code=0):
    """Everything that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "geo4d", *map(os.fsencode, map(str, words))],
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == code, said
    return said


def export(result, kind, target):
    geo4d("export", result, "--format", kind, "-o", target)
    return target


def pictures(source, folder, *words):
    """What a run takes for the frames, uint8 RGB [T, H, W, 3], by the COLMAP export; and what the run says."""
    said = geo4d("reconstruct", source, "-o", folder / "r", *words)
    images = sorted((export(folder / "r", "colmap", folder / "colmap") / "images").iterdir())
    return np.stack([read(path) for path in images]), said


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]


def coded(path):
    """Frames of a video as they are coded, without the display matrix."""
    video = cv2.VideoCapture(str(path))
    video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    frames = []
    while (got := video.read())[0]:
        frames.append(got[1][..., ::-1])
    return np.stack(frames)


def npz(result, target):
    with np.load(export(result, "npz", target)) as arrays:
        return dict(arrays)


def trajectory(result, target):
    return np.loadtxt(export(result, "tum", target), ndmin=2)


def close(found, wanted, levels=4.0):
    """The mean difference of pictures, at most so many of 255 levels (lossy sources, other decoders)."""
    assert found.shape == wanted.shape
    return np.abs(found.astype(float) - wanted).mean() <= levels


@pytest.mark.parametrize("name", ["still.png", "handheld.mp4"])
def test_c01_the_world_is_the_first_camera(cases, tmp_path, name):
    geo4d("reconstruct", cases / "C01-world-not-first-camera" / name, "-o", tmp_path / "r")
    np.testing.assert_array_equal(trajectory(tmp_path / "r", tmp_path / "t.txt")[0, 1:], [0] * 6 + [1])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("hflip.mp4", lambda frames: frames[:, :, ::-1]),
        ("rot90flip.mp4", lambda frames: frames.transpose(0, 2, 1, 3)),
    ],
)
def test_c02_mirrored_pictures_are_shown_mirrored(cases, tmp_path, name, shown):
    path = cases / "C02-mirrored-display-matrix" / name
    wanted = shown(coded(path))
    found, _ = pictures(path, tmp_path)
    assert close(found, wanted)
    for other in (wanted[:, ::-1], wanted[:, :, ::-1], wanted[:, ::-1, ::-1]):
        assert not close(found, other, 10)


def test_c04_a_preview_lasts_as_long_as_the_source(cases, tmp_path):
    import av

    geo4d("reconstruct", cases / "C04-vfr-preview/vfr.mp4", "-o", tmp_path / "r", "--max-size", "128")
    with av.open(str(export(tmp_path / "r", "preview", tmp_path / "p.mp4"))) as movie:
        assert movie.duration / 1e6 == pytest.approx(3.0, abs=0.05)


def test_c05_names_that_are_times(cases, tmp_path):
    folder = cases / "C05-timestamp-names-tum"
    geo4d("reconstruct", folder / "tumrgb", "-o", tmp_path / "r")
    times = trajectory(tmp_path / "r", tmp_path / "t.txt")[:, 0]
    np.testing.assert_allclose(times, np.loadtxt(folder / "groundtruth_made_up.txt")[:, 0], atol=1e-4)


def test_c06_names_that_are_decimal_numbers(cases, tmp_path):
    folder = cases / "C06-numeric-name-order/floatnames"
    paths = sorted(folder.iterdir(), key=lambda path: float(path.stem))
    found, _ = pictures(folder, tmp_path)
    for picture, path in zip(found, paths, strict=True):
        np.testing.assert_array_equal(picture, read(path))


def test_c07_links_to_nothing(cases, tmp_path):
    (tmp_path / "links").mkdir()
    for number in range(12):
        name = f"f{number:04d}.png"
        (tmp_path / "links" / name).symlink_to(cases / "C07-dangling-links/links_src" / name)
    said = geo4d("reconstruct", tmp_path / "links", "-o", tmp_path / "r", code=3)
    assert "5 of 12 frames readable (f0005.png" in said
    assert not (tmp_path / "r").exists()


def test_c09_values_that_use_little_of_their_range(cases, tmp_path):
    for name in ("thermal", "bits12"):
        (tmp_path / name).mkdir()
        found, said = pictures(cases / "C09-raw-16bit" / name, tmp_path / name)
        assert "the range of the whole sequence" in said
        assert found.std() > 25
        assert found.min() < 5
        assert found.max() > 250


@pytest.mark.parametrize("name", ["exif_png", "exif_webp", "exif_tiff"])
def test_c10_pictures_with_an_orientation_tag(cases, tmp_path, name):
    found, _ = pictures(cases / "C10-orientation-tag" / name, tmp_path)
    upright = coded(cases / "C01-world-not-first-camera/handheld.mp4")
    assert found.shape == (3, 144, 256, 3)
    assert min(np.abs(found[0].astype(float) - frame).mean() for frame in upright) < 6


def test_c12_a_name_that_is_not_utf8(cases, tmp_path):
    clip = os.fsencode(tmp_path) + b"/clip_\xe9t\xe9.mp4"
    Path(os.fsdecode(clip)).write_bytes((cases / "C12-name-not-utf8/clip.mp4").read_bytes())
    geo4d("reconstruct", os.fsdecode(clip), "-o", tmp_path / "r")
    geo4d("report", tmp_path / "r", "-o", tmp_path / "r.html")
    assert "clip_\ufffdt\ufffd.mp4" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["hdr_pq.mov", "hdr_hlg.mov"])
def test_c14_hdr_is_mapped_to_sdr(cases, tmp_path, name):
    wanted = coded(cases / "C14-hdr/sdr_same_scene.mp4").astype(float)
    found, said = pictures(cases / "C14-hdr" / name, tmp_path)
    assert "mapped" in said
    assert found.std() == pytest.approx(wanted.std(), rel=0.15)
    assert close(found, wanted, 8)


def test_c15_nerfstudio_reads_depth_and_points(cases, tmp_path):
    geo4d("reconstruct", cases / "C01-world-not-first-camera/handheld.mp4", "-o", tmp_path / "r")
    scene = nerfstudio.load(export(tmp_path / "r", "nerfstudio", tmp_path / "ns"))
    arrays = npz(tmp_path / "r", tmp_path / "r.npz")
    kept = (scene.depth > 0) & np.isfinite(arrays["depth"])
    # Ratio of the paths and of the depths: both readers of one scene see the same one.
    ours, theirs = (
        np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum() for poses in (arrays["c2w"], scene.c2w)
    )
    ratio = np.median(scene.depth[kept] / arrays["depth"][kept])
    assert ratio == pytest.approx(theirs / ours, rel=1e-3)
    assert len(scene.points) > 1000


def test_c17_bars_are_no_geometry(cases, tmp_path):
    geo4d("reconstruct", cases / "C17-letterbox/letterbox.mp4", "-o", tmp_path / "r")
    confidence = npz(tmp_path / "r", tmp_path / "r.npz")["confidence"]
    assert confidence.shape[1:] == (144, 256)
    bars = np.concatenate([confidence[:, :22], confidence[:, -22:]], axis=1)
    assert (bars > 0).mean() < 0.01
    assert np.median(confidence[:, 24:-24]) > 0.3
    points = ply.load(export(tmp_path / "r", "ply", tmp_path / "p.ply"))
    brightest = np.stack([points[name] for name in ("red", "green", "blue")]).max(0)
    assert len(brightest) > 1000
    assert (brightest < 24).mean() < 0.005


def test_p1_an_edit_list_is_no_damage(cases, tmp_path):
    found, _ = pictures(cases / "P1-edit-list/trim.mp4", tmp_path)
    assert len(found) == 24
    assert close(found, coded(cases / "P1-edit-list/trim.mp4")[-24:])
    assert trajectory(tmp_path / "r", tmp_path / "t.txt")[0, 0] == 0


def test_p3_dropped_frames_leave_gaps_in_the_times(cases, tmp_path):
    geo4d("reconstruct", cases / "P3-avi-dropped-frames/drop.avi", "-o", tmp_path / "r")
    times = trajectory(tmp_path / "r", tmp_path / "t.txt")[:, 0]
    assert len(times) == 21
    assert times[-1] == pytest.approx(0.7674, abs=1e-3)
    assert min(b - a for a, b in pairwise(times)) == pytest.approx(1001 / 30000, abs=1e-3)


def test_p5_a_gif_with_transparent_pixels_and_no_delays(cases, tmp_path):
    from PIL import Image, ImageSequence

    path = cases / "P5-gif-transparent/transp.gif"
    with Image.open(path) as gif:
        wanted = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)])
    found, _ = pictures(path, tmp_path)
    assert len(found) == 12
    assert close(found, wanted, 0.5)
    times = trajectory(tmp_path / "r", tmp_path / "t.txt")[:, 0]
    np.testing.assert_allclose(times, np.arange(12) * 0.1, atol=1e-6)


def test_p6_a_path_in_other_scripts(cases, tmp_path):
    (clip,) = (cases / "P6-unicode-path").glob("*.mp4")
    place = tmp_path / "Übung 1 🐈"
    place.mkdir()
    geo4d("reconstruct", clip, "-o", place / "r")
    geo4d("report", place / "r", "-o", place / "r.html")
    assert clip.name in (place / "r.html").read_text(encoding="utf-8")
    nerfstudio.load(export(place / "r", "nerfstudio", place / "ns"))
    model = colmap.load(export(place / "r", "colmap", place / "colmap"))
    assert len(model.images) == len(coded(clip))
    assert len(model.points3D) > 1000


def test_p7_grey_pictures_with_alpha(cases, tmp_path):
    folder = cases / "P7-grey-alpha-png/la"
    found, _ = pictures(folder, tmp_path)
    assert len(found) == 3
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    for picture, path in zip(found, sorted(folder.iterdir()), strict=True):
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert close(picture[..., 0], stored[..., 0], 1)
