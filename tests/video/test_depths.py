"""Folders of depth in the layouts that robots write, with known values."""

import io
import json

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.images import save_exr, save_image, save_png16
from geo4d.video.depths import open_depths
from geo4d.video.io import Video

SIZE = (6, 8)


def metres(t):
    depth = (1 + t + np.arange(48).reshape(SIZE) / 50).astype(np.float32)
    depth[0, 0] = 0  # nothing measured
    return depth


def known(t):
    return np.where(metres(t) > 0, metres(t), np.nan)


def pictures(folder, names):
    for t, name in enumerate(names):
        save_image(folder / f"{name}.png", np.full((*SIZE, 3), 20 * t, np.uint8))
    return folder


def clip(num_frames=4, **options):
    return Video(np.zeros((num_frames, *SIZE, 3), np.uint8), **options)


def millimetres(folder, names):
    for t, name in enumerate(names):
        save_png16(folder / f"{name}.png", np.round(metres(t) * 1000).astype(np.uint16))
    return folder


def test_the_same_names_in_steps_of_a_millimetre(tmp_path):
    rgb = Video(pictures(tmp_path / "rgb", ["a3", "a5", "a7"]), stride=2)
    depth = millimetres(tmp_path / "other", ["a3", "a5", "a7"])
    with pytest.raises(InputError, match="--depth-unit METRES"):
        open_depths(depth, rgb)
    found = open_depths(depth, rgb, unit=0.001)
    assert found.frames.tolist() == [0, 2]
    np.testing.assert_allclose(found.read(1), known(2), atol=6e-4)
    assert "by name" in found.notes[-1]
    assert "2 of 2" in found.notes[-1]


def test_times_of_a_tum_recording_and_its_unit(tmp_path):
    stamps = [100.0, 100.1, 100.2, 100.3]
    rgb = Video(pictures(tmp_path / "rgb", ["0", "1", "2", "3"]), times=stamps)
    for k in range(3):
        save_png16(tmp_path / "depth" / f"{k}x.png", np.round(metres(k) * 5000).astype(np.uint16))
    lines = [f"{100.02 + 0.1 * (2 - k):.3f} depth/{2 - k}x.png" for k in range(3)]  # not in order
    (tmp_path / "depth.txt").write_text("# depth maps\n" + "\n".join(lines) + "\n200.0 depth/gone.png\n")
    for folder in (tmp_path, tmp_path / "depth"):
        found = open_depths(folder, rgb)
        assert found.frames.tolist() == [0, 1, 2, -1]
        assert found.unit == 1 / 5000
        assert "by time" in found.notes[-1]
        np.testing.assert_allclose(found.read(2), known(2), atol=2e-4)
    assert open_depths(tmp_path, rgb, unit=0.001).unit == 0.001
    moved = open_depths(tmp_path, rgb, time_offset_s=0.1)
    assert moved.frames.tolist() == [-1, 0, 1, 2]
    with pytest.raises(InputError, match="--time-offset SECONDS"):
        open_depths(tmp_path, rgb, time_offset_s=50)


def test_as_many_files_as_frames_follow_in_order_and_numbers_count_frames(tmp_path):
    for t in range(4):
        np.save(tmp_path / f"depth_{t + 1}.npy", metres(t).astype(np.float64))
    found = open_depths(tmp_path, clip(4, start=1))
    assert found.frames.tolist() == [1, 2, 3]
    assert "in order" in found.notes[-1]
    (tmp_path / "depth_4.npy").unlink()
    found = open_depths(tmp_path, clip(5, stop=4))
    assert found.frames.tolist() == [-1, 0, 1, 2]
    assert "by number" in found.notes[-1]
    np.testing.assert_allclose(found.read(2), known(1))


def test_floating_point_is_metres_unless_a_unit_says_otherwise(tmp_path):
    for t in range(3):
        depth = np.where(metres(t) > 0, metres(t), np.inf)
        save_exr(tmp_path / "exr" / f"{t}.exr", {"Z": depth.astype(np.float32)})
        (tmp_path / "npz").mkdir(exist_ok=True)
        np.savez(tmp_path / "npz" / f"{t}.npz", depth=100 * metres(t)[None])
    np.testing.assert_allclose(open_depths(tmp_path / "exr", clip(3)).read(1), known(1))
    np.testing.assert_allclose(open_depths(tmp_path / "npz", clip(3), unit=0.01).read(1), known(1), rtol=1e-6)


def test_our_own_export_states_its_step_and_sky(tmp_path):
    for t in range(3):
        values = np.round(metres(t) * 500).astype(np.uint16)
        values[1, 1] = 65535
        save_png16(tmp_path / f"depth_{t}.png", values)
    (tmp_path / "depth.json").write_text(json.dumps({"depth_step": 0.002, "conventions": {"unit": "metres"}}))
    expected = known(1)
    expected[1, 1] = np.nan
    np.testing.assert_allclose(open_depths(tmp_path, clip(3)).read(1), expected, atol=2e-3)
    (tmp_path / "depth.json").write_text(
        json.dumps({"depth_step": 0.002, "conventions": {"unit": "up to scale"}})
    )
    with pytest.raises(InputError, match="--depth-unit"):
        open_depths(tmp_path, clip(3))


def npy_header(shape):
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


BAD_FILES = {
    "packed": ("npz", lambda data: data[:60] + bytes(40) + data[100:], "not a readable npz"),
    "cut": ("npz", lambda data: data[:60], "not a readable npz"),
    "claims": ("npy", lambda data: npy_header((10**6, 10**7)), "does not fit"),
    "below zero": ("npy", lambda data: npy_header((-1, 5)), "does not fit"),
    "no pixels": ("npy", lambda data: npy_header((0, 8)), r"expected depth \[H, W\]"),
    "empty": ("npy", lambda data: b"", "not a readable npy"),
    "other view": ("npy", lambda data: npy_header((8, 6)) + bytes(4 * 48), "registered to the pictures"),
}
"""Kind of file, what becomes of its bytes, what is said."""


@pytest.mark.parametrize(
    "break_it", ["none", "two kinds", "8 bits", "shape", "few", "no folder", "names", *BAD_FILES]
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, break_it):
    folder = tmp_path / "depth"
    millimetres(folder, ["0", "1", "2"])
    why = {
        "none": "found none",
        "two kinds": "1 .npy, 3 .png",
        "8 bits": "16 bits",
        "shape": r"expected depth \[H, W\]",
        "few": "at least half of the 9 frames",
        "no folder": "found nothing",
        "names": "expected an array 'depth'",
        **{name: said for name, (_, _, said) in BAD_FILES.items()},
    }[break_it]
    frames = {"few": 9, "shape": 1, "names": 1}.get(break_it, 3)
    if break_it in ("none", "shape", "names"):
        for path in folder.iterdir():
            path.unlink()
    if break_it == "two kinds":
        np.save(folder / "x.npy", metres(0))
    if break_it == "8 bits":
        save_image(folder / "0.png", np.zeros((*SIZE, 3), np.uint8))
    if break_it == "shape":
        np.save(folder / "0.npy", np.zeros((2, 3, 4)))
    for path in sorted(folder.iterdir()) if break_it in BAD_FILES else ():
        path.unlink()
        np.savez_compressed(path.with_suffix(".npz"), depth=metres(0))
        np.save(path.with_suffix(".npy"), metres(0))
        path.with_suffix(".npz" if BAD_FILES[break_it][0] == "npy" else ".npy").unlink()
        damaged = path.with_suffix(f".{BAD_FILES[break_it][0]}")
        damaged.write_bytes(BAD_FILES[break_it][1](damaged.read_bytes()))
    if break_it == "names":
        np.savez(folder / "0.npz", a=metres(0), b=metres(1))
    if break_it == "no folder":
        folder = tmp_path / "nothing"
    with pytest.raises(InputError, match=why):
        open_depths(folder, clip(frames), unit=None if break_it == "8 bits" else 0.001).read(0)


def test_a_later_map_of_another_view_or_damaged_is_told_at_once_and_another_size_is_none(tmp_path):
    for t in range(4):
        np.save(tmp_path / f"{t}.npy", np.full((12, 16), 2.0))
    assert open_depths(tmp_path, clip(4)).read(1).shape == (12, 16)
    np.save(tmp_path / "3.npy", np.full((8, 6), 2.0))
    with pytest.raises(InputError, match="6 x 8"):
        open_depths(tmp_path, clip(4))
    assert open_depths(tmp_path, clip(3)).read(2).shape == (12, 16)  # of no frame: not looked at
    (tmp_path / "2.npy").write_bytes((tmp_path / "2.npy").read_bytes()[:200])
    with pytest.raises(InputError, match=r"2\.npy"):
        open_depths(tmp_path, clip(3))
