"""The prediction layout: every format, poses by stamp and by count, and input that is wrong."""

import json

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.evaluation.predicted import load_predictions
from geo4d.formats.cameras import save_tum
from geo4d.formats.images import save_exr, save_png16

TIMES = 10 + np.arange(4) / 10
DEPTH = np.linspace(1, 5, 4 * 6 * 8).reshape(4, 6, 8).astype(np.float32)


def write(folder, suffix, quantity="depth"):
    (folder / quantity).mkdir(parents=True)
    for t, values in enumerate(DEPTH):
        path = folder / quantity / f"frame_{t:04d}{suffix}"
        if suffix == ".npz":
            np.savez(path, **{quantity: values})
        elif suffix == ".npy":
            np.save(path, values)
        elif suffix == ".exr":
            save_exr(path, {"Z": values})
        else:
            save_png16(path, values * 1000 if quantity == "depth" else values / 5 * 65535)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".exr", ".png"])
@pytest.mark.parametrize("quantity", ["depth", "disparity"])
def test_formats(tmp_path, suffix, quantity):
    write(tmp_path, suffix, quantity)
    predicted = load_predictions(tmp_path, TIMES)
    expected = DEPTH / 5 if (suffix, quantity) == (".png", "disparity") else DEPTH
    np.testing.assert_allclose(predicted.maps[2], expected[2], atol=1e-3)
    assert predicted.quantity == quantity
    assert predicted.size == (6, 8)


def test_a_stack_and_points(tmp_path):
    np.savez(tmp_path / "maps.npz", depth=DEPTH[:2], frames=[1, 3])
    predicted = load_predictions(tmp_path, TIMES)
    assert predicted.frames.tolist() == [1, 3]
    points = np.stack([DEPTH, DEPTH, DEPTH], -1)
    mask = np.ones(DEPTH.shape, bool)
    mask[0, 0, 0] = False
    np.savez(tmp_path / "maps.npz", point_map=points, mask=mask)
    predicted = load_predictions(tmp_path, TIMES)
    assert np.isnan(predicted.maps[0][0, 0])
    np.testing.assert_allclose(predicted.points[1], points[1])


def test_fewer_files_are_placed_by_their_number(tmp_path):
    write(tmp_path, ".npy")
    (tmp_path / "depth" / "frame_0001.npy").unlink()
    assert load_predictions(tmp_path, TIMES).frames.tolist() == [0, 2, 3]
    (tmp_path / "depth" / "frame_0003.npy").rename(tmp_path / "depth" / "frame_0900.npy")
    with pytest.raises(InputError, match="frame numbers below 4"):
        load_predictions(tmp_path, TIMES)


def poses(n):
    result = np.tile(np.eye(4), (n, 1, 1))
    result[:, 0, 3] = np.arange(n)
    return result


@pytest.mark.parametrize("stamps", [TIMES, np.arange(4.0), TIMES + 100])
def test_poses_by_stamp_by_count_or_in_order(tmp_path, stamps):
    save_tum(tmp_path / "poses.txt", stamps, poses(4))
    predicted = load_predictions(tmp_path, TIMES)
    assert predicted.c2w[:, 0, 3].tolist() == [0, 1, 2, 3]
    assert bool(predicted.warnings) == (stamps[0] > 100)


def test_a_frame_without_pose_is_nan(tmp_path):
    save_tum(tmp_path / "poses.txt", TIMES[[0, 1, 3]], poses(3))
    predicted = load_predictions(tmp_path, TIMES)
    assert np.isnan(predicted.c2w[2]).all()
    assert predicted.c2w[3, 0, 3] == 2


def test_stamps_that_go_back_are_refused(tmp_path):
    save_tum(tmp_path / "poses.txt", TIMES[[0, 2, 1]], poses(3))
    with pytest.raises(InputError, match="row 3"):
        load_predictions(tmp_path, TIMES)


def test_facts_and_their_faults(tmp_path):
    write(tmp_path, ".npy")
    (tmp_path / "predictions.json").write_text(json.dumps({"scale_kind": "metric", "model": "mine"}))
    (tmp_path / "intrinsics.txt").write_text("10 10 4 3")
    predicted = load_predictions(tmp_path, TIMES)
    assert predicted.scale_kind == "metric"
    assert predicted.provenance["model"] == "mine"
    assert predicted.intrinsics.shape == (4, 3, 3)
    (tmp_path / "predictions.json").write_text(json.dumps({"scale_kind": "inches"}))
    with pytest.raises(InputError, match="inches"):
        load_predictions(tmp_path, TIMES)
    (tmp_path / "predictions.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        load_predictions(tmp_path, TIMES)


def test_empty_absent_and_damaged_folders(tmp_path):
    with pytest.raises(InputError, match="docs/protocols"):
        load_predictions(tmp_path / "absent", TIMES)
    with pytest.raises(InputError, match="none of them"):
        load_predictions(tmp_path, TIMES)
    np.savez(tmp_path / "maps.npz", depth=DEPTH)
    data = (tmp_path / "maps.npz").read_bytes()
    (tmp_path / "maps.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError):
        load_predictions(tmp_path, TIMES)
    np.savez(tmp_path / "maps.npz", colour=DEPTH)
    with pytest.raises(InputError, match="colour"):
        load_predictions(tmp_path, TIMES)
    np.savez(tmp_path / "maps.npz", depth=DEPTH, frames=[0, 1, 1, 2])
    with pytest.raises(InputError, match="different frame numbers"):
        load_predictions(tmp_path, TIMES)
