import dataclasses

import numpy as np
import pytest

from geo4d.export import ExportConfig, nerfstudio_scale, save
from geo4d.formats.images import load_png16
from geo4d.formats.nerfstudio import load_nerfstudio
from tests.readers_of_targets import nerfstudio

SIZE = (18, 25)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 400.0])
def test_nerfstudio_reads_depth_poses_and_points_in_one_unit(tmp_path, filmed, unit, caplog) -> None:
    c2w = filmed.c2w.copy()
    c2w[:, :3, 3] *= unit
    scaled = dataclasses.replace(filmed, depth=filmed.depth * np.float32(unit), c2w=c2w)
    save(scaled, tmp_path / "ns", "nerfstudio", ExportConfig(points_per_frame=60))
    scene = nerfstudio.load(tmp_path / "ns")
    factor = scene.meta["geo4d"]["scale_factor"]
    to_theirs = factor * scene.scale  # from the unit of the result to nerfstudio's
    np.testing.assert_allclose(scene.saved_c2w[:, :3, 3], factor * c2w[:, :3, 3], atol=1e-9 * factor * unit)
    valid = np.isfinite(scaled.depth)
    assert (scene.depth[~valid] == 0).all()
    expected = scaled.depth * to_theirs
    assert (
        np.abs(scene.depth / np.where(valid, expected, 1) - 1)[valid].max() < 2e-3
    )  # no flag given, right all the same
    assert scene.masks is not None
    np.testing.assert_array_equal(scene.masks, filmed.dynamic < 0.5)
    # Points lie on the depth that the cameras see, and none of them on what moves.
    assert scene.points is not None
    assert len(scene.points) == 240
    for frame in range(4):
        pixels, z = nerfstudio.project(scene, frame, scene.points)
        column, row = np.floor(pixels).astype(int).T
        inside = (column > 0) & (column < SIZE[1] - 1) & (row > 1) & (row < SIZE[0] - 1)
        inside[inside] &= scene.masks[frame][row[inside], column[inside]]
        assert inside.sum() > 100
        there = scene.depth[frame][row[inside], column[inside]]
        assert np.median(np.abs(there / z[inside] - 1)) < 5e-3
    assert not {"applied_transform", "applied_scale", "depth_unit_scale_factor"} & set(scene.meta)
    assert "scale" not in caplog.text
    model = load_nerfstudio(tmp_path / "ns")  # our own reader comes to the same
    np.testing.assert_allclose(model.c2w[:, :3, 3], factor * c2w[:, :3, 3], atol=1e-9 * factor * unit)
    assert model.depth_unit == 0.001


@pytest.mark.parametrize("seed", range(20))
def test_sixteen_bits_hold_any_depth(tmp_path, filmed, seed) -> None:
    """Rounding must not push the farthest pixel over the end: 65535.00000000001 did."""
    rng = np.random.default_rng(seed)
    depth = (filmed.depth * rng.uniform(0.01, 100)).astype(np.float32)
    one = dataclasses.replace(filmed, depth=depth)
    save(one, tmp_path / "ns", "nerfstudio", ExportConfig(frames=(0, 1)))
    save(one, tmp_path / "png", "png", ExportConfig(frames=(0, 1)))
    scale = nerfstudio_scale(one, [0, 1])
    far = depth[:2][np.isfinite(depth[:2])].max()
    assert 0.98 * 65535 < far * scale / 0.001 <= 65535
    assert (load_png16(tmp_path / "ns/depth/frame_000000.png") <= 65535).all()
    assert (load_png16(tmp_path / "png/depth_000000.png")[np.isfinite(depth[0])] < 65535).all()


def test_nerfstudio_metres_stay_metres_and_far_outliers_do_not_take_the_bits(
    tmp_path, filmed, caplog
) -> None:
    assert nerfstudio_scale(dataclasses.replace(filmed, scale_kind="metric"), range(4)) == 1.0
    far = dataclasses.replace(filmed, scale_kind="metric", depth=filmed.depth * 50)
    assert 0.3 < nerfstudio_scale(far, range(4)) < 0.6
    depth = filmed.depth.copy()
    depth[2, 17, 24] = 1e5
    save(dataclasses.replace(filmed, depth=depth), tmp_path / "ns", "nerfstudio")
    assert "left out" in caplog.text
    scene = nerfstudio.load(tmp_path / "ns")
    expected = depth * scene.meta["geo4d"]["scale_factor"] * scene.scale
    near = np.isfinite(depth) & (depth < 10)
    assert np.abs(scene.depth / np.where(near, expected, 1) - 1)[near].max() < 2e-3
    assert scene.depth[2, 17, 24] == 0


def test_nerfstudio_still_camera_and_no_masks(tmp_path, filmed, caplog) -> None:
    still = dataclasses.replace(filmed, c2w=np.tile(np.eye(4), (4, 1, 1)), dynamic=None)
    save(still, tmp_path / "ns", "nerfstudio")
    assert "--auto-scale-poses False" in caplog.text  # nerfstudio would divide by zero
    assert nerfstudio.load(tmp_path / "ns", auto_scale_poses=False).masks is None
    assert not (tmp_path / "ns/masks").exists()
