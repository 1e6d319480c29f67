import dataclasses
import json

import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.formats.cameras import (
    load_cam,
    load_kitti_poses,
    load_tum,
    poses_to_quaternions,
    quaternions_to_poses,
    save_kitti_poses,
    save_tum,
)
from geo4d.formats.colmap import ColmapModel, load_colmap, save_colmap
from geo4d.formats.nerfstudio import NerfstudioModel, load_nerfstudio, save_nerfstudio
from tests.support.poses import se3_exp
from tests.support.writers import save_cam


@pytest.fixture
def c2w(generator) -> np.ndarray:
    return se3_exp(torch.randn(5, 6, generator=generator, dtype=torch.float64)).numpy()


@pytest.fixture
def intrinsics() -> np.ndarray:
    return np.array([[50.0, 0, 20.5], [0, 51.0, 16.0], [0, 0, 1]])


def test_tum_round_trip_and_an_independent_reader(tmp_path, c2w) -> None:
    from evo.tools import file_interface

    times = np.array([0.0, 0.04, 0.1, 0.2, 1e9 + 0.125])
    save_tum(tmp_path / "t.txt", times, c2w, ["a comment"])
    read_times, poses = load_tum(tmp_path / "t.txt")
    np.testing.assert_array_equal(read_times, times)
    np.testing.assert_allclose(poses, c2w, atol=1e-12)
    theirs = file_interface.read_tum_trajectory_file(str(tmp_path / "t.txt"))
    np.testing.assert_allclose(np.stack(theirs.poses_se3), c2w, atol=1e-9)


def test_kitti_round_trip_and_an_independent_reader(tmp_path, c2w) -> None:
    from evo.tools import file_interface

    save_kitti_poses(tmp_path / "k.txt", c2w)
    np.testing.assert_allclose(load_kitti_poses(tmp_path / "k.txt"), c2w, atol=1e-15)
    theirs = file_interface.read_kitti_poses_file(str(tmp_path / "k.txt"))
    np.testing.assert_allclose(np.stack(theirs.poses_se3), c2w, atol=1e-12)


def test_quaternions_round_trip(c2w) -> None:
    np.testing.assert_allclose(
        quaternions_to_poses(c2w[:, :3, 3], poses_to_quaternions(c2w)), c2w, atol=1e-12
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("1 2 3", "8 numbers"),
        ("0 a 0 0 0 0 0 1", "expected numbers"),
        ("0 0 0 0 0 0 0 0", "length 0"),
    ],
)
def test_broken_tum_files(tmp_path, text, message) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_tum(tmp_path / "t.txt")


def test_cam_round_trip(tmp_path, c2w, intrinsics) -> None:
    save_cam(tmp_path / "a.cam", intrinsics, c2w[0])
    read_intrinsics, pose = load_cam(tmp_path / "a.cam")
    np.testing.assert_array_equal(read_intrinsics, intrinsics)
    np.testing.assert_allclose(pose, c2w[0], atol=1e-12)
    (tmp_path / "b.cam").write_bytes(b"short")
    with pytest.raises(InputError, match="172 bytes"):
        load_cam(tmp_path / "b.cam")


def colmap_model(c2w: np.ndarray, intrinsics: np.ndarray, num_points: int = 12) -> ColmapModel:
    rng = np.random.default_rng(0)
    zoomed = intrinsics.copy()
    zoomed[0, 0] = 70
    return ColmapModel(
        names=[f"frame {i}.png" if i == 1 else f"frame_{i}.png" for i in range(5)],
        intrinsics=np.stack([intrinsics] * 4 + [zoomed]),
        sizes=[(32, 41)] * 5,
        c2w=c2w,
        points=rng.normal(size=(num_points, 3)),
        colours=rng.integers(0, 256, (num_points, 3)).astype(np.uint8),
        point_errors=rng.random(num_points),
        track_points=np.repeat(np.arange(num_points), 2),
        track_images=np.tile([0, 4], num_points),
        track_pixels=rng.random((2 * num_points, 2)) * 30,
    )


@pytest.mark.parametrize("binary", [True, False])
def test_colmap_round_trip_and_pycolmap(tmp_path, c2w, intrinsics, binary) -> None:
    import pycolmap

    model = colmap_model(c2w, intrinsics)
    if not binary:
        model.names[1] = "frame_1.png"
    save_colmap(tmp_path, model, binary=binary, text=not binary)
    read = load_colmap(tmp_path)
    order = np.argsort(model.names)
    assert read.names == sorted(model.names)
    np.testing.assert_allclose(read.c2w, c2w[order], atol=1e-9)
    np.testing.assert_allclose(read.intrinsics, model.intrinsics[order])
    np.testing.assert_allclose(read.points, model.points)
    np.testing.assert_array_equal(read.colours, model.colours)
    assert len(read.track_points) == len(model.track_points)

    theirs = pycolmap.Reconstruction(str(tmp_path))
    assert theirs.num_images() == 5
    assert theirs.num_points3D() == 12
    assert theirs.num_cameras() == 2
    for image in theirs.images.values():
        row = model.names.index(image.name)
        np.testing.assert_allclose(image.cam_from_world().matrix(), np.linalg.inv(c2w[row])[:3], atol=1e-6)
        np.testing.assert_allclose(image.camera.calibration_matrix(), model.intrinsics[row])
    for point in theirs.points3D.values():
        assert point.track.length() == 2


def test_colmap_without_points_or_with_unsupported_cameras(tmp_path, c2w, intrinsics) -> None:
    empty = ColmapModel(["a.png"], intrinsics[None], [(32, 41)], c2w[:1])
    save_colmap(tmp_path / "e", empty)
    assert load_colmap(tmp_path / "e").points.shape == (0, 3)
    with pytest.raises(InputError, match="found nothing"):
        load_colmap(tmp_path / "none")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/cameras.txt").write_text("1 FISHEYE 41 32 1 2 3 4 5\n")
    (tmp_path / "t/images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n\n")
    with pytest.raises(InputError, match="not supported"):
        load_colmap(tmp_path / "t")
    (tmp_path / "e/sparse").mkdir()
    data = (tmp_path / "e/images.bin").read_bytes()
    (tmp_path / "e/images.bin").write_bytes(data[:-6])
    with pytest.raises(InputError, match="malformed"):
        load_colmap(tmp_path / "e")


def test_nerfstudio_round_trip_and_axes(tmp_path, c2w, intrinsics) -> None:
    model = NerfstudioModel(
        files=[f"images/{i}.png" for i in range(5)],
        intrinsics=np.stack([intrinsics] * 5),
        sizes=[(32, 41)] * 5,
        c2w=c2w,
        depth_files=[f"depth/{i}.png" for i in range(5)],
        mask_files=[f"masks/{i}.png" for i in range(5)],
        ply_file="points.ply",
        times_s=np.arange(5.0),
    )
    save_nerfstudio(tmp_path / "transforms.json", model, {"note": "x"})
    read = load_nerfstudio(tmp_path)
    np.testing.assert_allclose(read.c2w, c2w, atol=1e-12)
    np.testing.assert_allclose(read.intrinsics, model.intrinsics)
    assert read.depth_files == model.depth_files
    assert read.depth_unit == 0.001
    assert read.mask_files == model.mask_files
    assert read.ply_file == "points.ply"
    with pytest.raises(ValueError, match="one factor"):  # nerfstudio would not see it
        save_nerfstudio(tmp_path / "t.json", dataclasses.replace(model, depth_unit=0.01))
    with pytest.raises(ValueError, match="mask_files"):
        save_nerfstudio(tmp_path / "t.json", dataclasses.replace(model, mask_files=["masks/0.png"]))
    document = json.loads((tmp_path / "transforms.json").read_text())
    looking = np.array(document["frames"][0]["transform_matrix"])[:3, 2]
    np.testing.assert_allclose(looking, -c2w[0, :3, 2], atol=1e-12)


def test_nerfstudio_shared_field_of_view_and_distortion(tmp_path) -> None:
    frame = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    document = {"camera_angle_x": np.pi / 2, "w": 40, "h": 30, "frames": [frame]}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    assert load_nerfstudio(tmp_path).intrinsics[0, 0, 0] == pytest.approx(20)
    (tmp_path / "transforms.json").write_text(json.dumps({**document, "k1": 0.1}))
    with pytest.raises(InputError, match="distortion"):
        load_nerfstudio(tmp_path)
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(InputError, match="malformed"):
        load_nerfstudio(tmp_path)
