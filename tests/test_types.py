import subprocess
import sys

import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.types import LazyFrames, Prediction, Reconstruction


def make(c2w: np.ndarray | None) -> Reconstruction:
    depth = np.full((3, 4, 6), 2.0, np.float32)
    depth[:, 0, 0], depth[:, 0, 1] = np.nan, np.inf
    intrinsics = centred_intrinsics(torch.full((3,), 5.0), (4, 6)).numpy()
    return Reconstruction(
        depth=depth,
        confidence=np.ones_like(depth),
        intrinsics=intrinsics,
        times_s=np.arange(3.0),
        source_frames=np.arange(3),
        c2w=c2w,
    )


def test_reconstruction_derives_its_maps_lazily() -> None:
    c2w = np.tile(np.eye(4), (3, 1, 1))
    c2w[2, :3, 3] = [1.0, 2.0, 3.0]
    scene = make(c2w)
    assert scene.size == (4, 6)
    disparity = scene.disparity[1]
    assert np.isnan(disparity[0, 0])
    assert disparity[0, 1] == 0
    assert disparity[2, 2] == 0.5
    assert scene.valid[0].sum() == 22
    assert scene.sky[:].sum() == 3
    camera, world = scene.points("camera"), scene.points("world")
    assert world.shape == (3, 4, 6, 3)
    np.testing.assert_allclose(world[2, 1, 1] - camera[2, 1, 1], [1, 2, 3])
    assert np.isnan(world[0, 0, 1]).all()
    rays = scene.rays()[2]
    np.testing.assert_allclose(np.cross([1.0, 2.0, 3.0], rays[..., :3]), rays[..., 3:], atol=1e-5)


def test_reconstruction_without_poses_says_so() -> None:
    scene = make(None)
    assert not scene.has_poses
    assert scene.points("camera")[0].shape == (4, 6, 3)
    with pytest.raises(ValueError, match="geo4d pose"):
        scene.points("world")


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        slice(1, 3),
        [2, 0],
        np.array([True, False, True]),
        (slice(None), 1),
        (0, 2, 3),
        slice(2, 2),
        ...,
    ],
)
def test_lazy_frames_slice_like_numpy(key: object) -> None:
    full = np.arange(3 * 4 * 6, dtype=np.float32).reshape(3, 4, 6)
    lazy = LazyFrames(full.shape, full.dtype, lambda t: full[t])
    np.testing.assert_array_equal(lazy[key], full[key])
    np.testing.assert_array_equal(np.asarray(lazy), full)
    assert len(lazy) == 3


def test_prediction_needs_a_map_to_have_a_size() -> None:
    frames, times = torch.arange(2), torch.arange(2.0)
    prediction = Prediction(
        frame_indices=frames, times_s=times, window_index=0, disparity=torch.zeros(2, 3, 5)
    )
    assert prediction.size == (3, 5)
    assert set(prediction.tensors()) == {"frame_indices", "times_s", "disparity"}
    with pytest.raises(ValueError, match="point_map or disparity"):
        _ = Prediction(frame_indices=frames, times_s=times, window_index=0).size


def test_import_leaves_torch_alone() -> None:
    code = "import sys, geo4d; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; geo4d.Window"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tensors_of_chosen_frames_have_their_names_and_values() -> None:
    scene = make(np.tile(np.eye(4), (3, 1, 1)))
    tensors = scene.to_torch([2, 0])
    assert set(tensors) == {"depth", "confidence", "intrinsics", "c2w", "times_s", "source_frames"}
    assert tensors["times_s"].tolist() == [2.0, 0.0]
    assert tensors["depth"].shape == (2, 4, 6)
    assert torch.isnan(tensors["depth"][:, 0, 0]).all()
    assert tensors["c2w"].dtype == torch.float64
    assert scene.to_torch(-1)["source_frames"].tolist() == [2]
    assert scene.to_torch()["depth"].shape == (3, 4, 6)
    assert scene.to_torch(slice(3, None))["depth"].shape == (0, 4, 6)
    assert "c2w" not in make(None).to_torch(0)
    assert scene.to_torch(0, device="meta")["depth"].device.type == "meta"


def test_export_writes_what_save_writes(tmp_path) -> None:
    from geo4d.export import ExportConfig, save

    scene = make(np.tile(np.eye(4), (3, 1, 1)))
    (one,) = scene.export(tmp_path / "one.ply", frames=range(2), min_confidence=0.0)
    config = ExportConfig(frames=(0, 1), min_confidence=0.0)
    (two,) = save(scene, tmp_path / "two.ply", "ply", config)
    assert one.read_bytes() == two.read_bytes()
    assert scene.export(tmp_path / "path.txt", "tum")[0].is_file()
    scene.export(tmp_path / "path.txt", "tum", overwrite=True)
    for path, options, message in (
        ("path.txt", {}, "tum and kitti have that suffix"),
        ("folder", {}, "no format has that suffix"),
        ("x.ply", {"voxel": 1}, "expected options out of frames, .*, got voxel"),
    ):
        with pytest.raises(ValueError, match=message):
            scene.export(tmp_path / path, **options)
