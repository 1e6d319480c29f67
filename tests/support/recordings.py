"""Recordings of a few kilobytes in the layouts of data sets: known depth, cameras and pictures."""

import json
from pathlib import Path

import numpy as np
import pytest

from geo4d.datasets.base import Sequence
from geo4d.datasets.catalogue import find_sequences, load_ground_truth, load_reader
from geo4d.errors import InputError
from geo4d.formats.cameras import poses_to_quaternions, save_kitti_poses, save_tum
from geo4d.formats.colmap import ColmapModel, save_colmap
from geo4d.formats.images import save_image, save_png16
from geo4d.formats.nerfstudio import NerfstudioModel, save_nerfstudio
from tests.support.writers import save_cam, save_dpt, save_pfm

H, W, T = 6, 8, 3


def depth(t):
    return (2 + t + np.arange(H * W).reshape(H, W) / 10).astype(np.float32)


def rgb(t):
    return np.full((H, W, 3), (10 * t, 20, 30), np.uint8)


def poses(n=T):
    result = np.tile(np.eye(4), (n, 1, 1))
    angles = 0.1 * np.arange(n)
    result[:, 0, 0], result[:, 0, 2] = np.cos(angles), np.sin(angles)
    result[:, 2, 0], result[:, 2, 2] = -np.sin(angles), np.cos(angles)
    result[:, :3, 3] = np.arange(n)[:, None] * [0.1, 0.2, 0.3]
    return result


def write_monkaa(root):
    for t in range(T):
        save_image(root / "frames_cleanpass" / "eating_x2" / "left" / f"{t:04d}.png", rgb(t))
        disparity = 1050 / depth(t)
        disparity[0, 0] = 0.5  # sky
        (root / "disparity" / "eating_x2" / "left").mkdir(parents=True, exist_ok=True)
        save_pfm(root / "disparity" / "eating_x2" / "left" / f"{t:04d}.pfm", disparity.astype(np.float32))
    return root


def write_euroc(root):
    folder = root / "V1_01_easy"
    stamps = 1403715274312143104 + 50_000_000 * np.arange(T)
    for t, stamp in enumerate(stamps):
        save_image(folder / "mav0" / "cam0" / "data" / f"{stamp}.png", rgb(t))
    (folder / "mav0" / "cam0" / "data.csv").write_text(
        "#timestamp [ns],filename\n"
        + "\n".join(f"{stamp},{stamp}.png" for stamp in [*stamps, stamps[-1] + 10**9])
    )
    (folder / "mav0" / "cam0" / "sensor.yaml").write_text(
        "%YAML:1.0\nT_BS:\n  cols: 4\n  rows: 4\n  data: [0, -1, 0, 0.1,\n  1, 0, 0, 0.2,\n"
        "  0, 0, 1, 0.3,\n  0, 0, 0, 1]\n"
        "intrinsics: [10, 11, 3.5, 2.5] #fu, fv, cu, cv\n"
    )
    inverse = poses_to_quaternions(poses()) * [1, -1, -1, -1]  # the quirk: world to camera
    rows = [
        f"{stamp}.0 {' '.join(map(str, pose[:3, 3]))} {' '.join(map(str, quaternion))}"
        for stamp, pose, quaternion in zip(stamps, poses(), inverse, strict=True)
    ]
    (folder / "groundtruth").mkdir()
    (folder / "groundtruth" / "V1_01_easy.txt").write_text("\n".join(["#header", *rows]))
    return folder


def load_only(reader_name, root) -> Sequence:
    reader = load_reader(reader_name)
    found = find_sequences(reader, root)
    assert len(found) == 1
    name, path = next(iter(found.items()))
    return reader.load(path, name)


def write_synthetic(root):
    clip = root / "clip"
    for t in range(T):
        save_image(clip / "rgb" / f"{t:06d}.png", rgb(t))
        (clip / "depth").mkdir(exist_ok=True)
        np.savez(clip / "depth" / f"{t:06d}.npz", depth=depth(t))
        save_image(clip / "dynamic" / f"{t:06d}.png", np.full((H, W, 3), 255 * (t == 1), np.uint8))
    (clip / "intrinsics.txt").write_text("10 11 4 3\n")
    save_tum(clip / "poses.txt", np.arange(T) / 10, poses())
    (clip / "clip.json").write_text(json.dumps({"fps": 10}))
    return clip


def write_tartanair(root):
    clip = root / "P000"
    for t in range(T):
        save_image(clip / "image_left" / f"{t + 5:06d}_left.png", rgb(t))
        (clip / "depth_left").mkdir(exist_ok=True)
        np.save(clip / "depth_left" / f"{t + 5:06d}_left_depth.npy", depth(t))
    change = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])  # NED to OpenCV
    ned = poses()
    ned[:, :3, :3] = change.T @ ned[:, :3, :3] @ change
    ned[:, :3, 3] = ned[:, :3, 3] @ change
    rows = np.zeros((5 + T, 7))
    rows[:, 6] = 1
    quaternion = poses_to_quaternions(ned)
    rows[5:] = np.concatenate([ned[:, :3, 3], quaternion[:, 1:], quaternion[:, :1]], 1)
    np.savetxt(clip / "pose_left.txt", rows)
    return clip


def write_hololens(root):
    scene = root / "000"
    for t, number in enumerate((3, 5, 6)):
        save_image(scene / "images" / f"{number:05d}.png", rgb(t))
        save_png16(scene / "depth" / f"{number:05d}.png", depth(t) * 1000)
    np.savetxt(scene / "K.txt", [[10, 0, 3.5], [0, 11, 2.5], [0, 0, 1]])
    np.savetxt(scene / "poses.txt", poses(9).reshape(9, 16))
    return scene


def write_iclnuim(root):
    scene = root / "livingroom1"
    for t in range(T):
        save_image(scene / "image" / f"{t:05d}.jpg", rgb(t))
        save_png16(scene / "depth" / f"{t:05d}.png", depth(t) * 1000)
    nodes = [{"pose": pose.T.ravel().tolist()} for pose in poses(5)]
    (scene / "fragment_optimized_000.json").write_text(json.dumps({"nodes": nodes}))
    return scene


def write_tum_like(folder):
    lists = {"rgb": [], "depth": []}
    for t in range(T):
        save_image(folder / "rgb" / f"{100 + t / 10:.6f}.png", rgb(t))
        save_png16(folder / "depth" / f"{100.004 + t / 10:.6f}.png", depth(t) * 5000)
        lists["rgb"].append(f"{100 + t / 10:.6f} rgb/{100 + t / 10:.6f}.png")
        lists["depth"].append(f"{100.004 + t / 10:.6f} depth/{100.004 + t / 10:.6f}.png")
    lists["rgb"].append("200.0 rgb/not_here.png")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(["# stamp file", *lines]))
    times = np.concatenate([[99.0], 100.002 + np.arange(T) / 10, [150.0]])
    save_tum(folder / "groundtruth.txt", times, np.concatenate([poses(1), poses(), poses(1)]))
    return folder


def write_tum(root):
    return write_tum_like(root / "rgbd_dataset_freiburg3_walking_xyz")


def write_bonn(root):
    return write_tum_like(root / "rgbd_bonn_balloon2")


def write_sintel(root, render_pass="final"):
    base = root / "training"
    for t in range(T):
        save_image(base / render_pass / "alley_2" / f"frame_{t + 1:04d}.png", rgb(t))
        (base / "depth" / "alley_2").mkdir(parents=True, exist_ok=True)
        (base / "camdata_left" / "alley_2").mkdir(parents=True, exist_ok=True)
        save_dpt(base / "depth" / "alley_2" / f"frame_{t + 1:04d}.dpt", depth(t))
        matrix = np.array([[10.0, 0, 3.5], [0, 11, 2.5], [0, 0, 1]])
        save_cam(base / "camdata_left" / "alley_2" / f"frame_{t + 1:04d}.cam", matrix, poses()[t])
    return root


def write_kitti_gathered(root):
    base = root / "depth_selection" / "val_selection_cropped"
    for t in range(T):
        save_image(base / "image_gathered" / "drive_02" / f"{t + 5:010d}.png", rgb(t))
        save_png16(base / "groundtruth_depth_gathered" / "drive_02" / f"{t + 5:010d}.png", depth(t) * 256)
    return root


def write_kitti_raw(root):
    drive = "2011_09_26_drive_0002_sync"
    truth = root / "data_depth_annotated" / "val" / drive / "proj_depth" / "groundtruth" / "image_02"
    images = root / "raw_data" / "2011_09_26" / drive / "image_02" / "data"
    for t in range(T):
        save_png16(truth / f"{t + 5:010d}.png", depth(t) * 256)
        save_image(images / f"{t + 5:010d}.png", rgb(t))
    (root / "raw_data" / "2011_09_26" / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012\nP_rect_02: 10 0 3.5 0 0 11 2.5 0 0 0 1 0\n"
    )
    return root


def write_kitti_selection(root):
    base = root / "val_selection_cropped"
    for t in range(T):
        stem = f"2011_09_26_drive_0002_sync_{{}}_{t + 5:010d}_image_02"
        save_image(base / "image" / f"{stem.format('image')}.png", rgb(t))
        save_png16(base / "groundtruth_depth" / f"{stem.format('groundtruth_depth')}.png", depth(t) * 256)
        (base / "intrinsics").mkdir(exist_ok=True)
        (base / "intrinsics" / f"{stem.format('image')}.txt").write_text("10 0 3.5 0 11 2.5 0 0 1")
    return root


def write_kitti_list(root):
    entries = []
    for t in (2, 0, 1):  # the list is not in order
        save_image(root / "rgb" / f"{t:010d}.png", rgb(t))
        save_png16(root / "depth" / f"{t:010d}.png", depth(t) * 256)
        paths = {"rgb": f"data/demo/rgb/{t:010d}.png", "depth": f"data/demo/depth/{t:010d}.png"}
        entries.append({"cam_in": [10, 11, 3.5, 2.5], "depth_scale": 256.0, **paths})
    (root / "test_annotations.json").write_text(json.dumps({"files": entries}))
    return root


def write_kitti_odometry(root):
    folder = root / "sequences" / "07"
    for t in range(T):
        save_image(folder / "image_2" / f"{t:06d}.png", rgb(t))
    row = "10 0 3.5 {} 0 11 2.5 0 0 0 1 0"
    lines = [f"P{i}: {row.format(-5.0 if i == 2 else 0)}" for i in range(4)]
    (folder / "calib.txt").write_text("\n".join(lines))
    (folder / "times.txt").write_text("\n".join(str(t / 10) for t in range(T)))
    save_kitti_poses(root / "poses" / "07.txt", poses())
    return root


def write_seven_scenes(root):
    folder = root / "chess" / "seq-01"
    for t in range(T):
        save_image(folder / f"frame-{t:06d}.color.png", rgb(t))
        raw = depth(t) * 1000
        raw[0, 0] = 65535
        save_png16(folder / f"frame-{t:06d}.depth.png", raw)
        np.savetxt(folder / f"frame-{t:06d}.pose.txt", poses()[t])
    return folder


def write_scannet(root):
    scene = root / "scans_test" / "scene0707_00"
    for t in range(T):
        save_image(scene / "color" / f"{t}.jpg", np.zeros((2 * H, 2 * W, 3), np.uint8))
        save_png16(scene / "depth" / f"{t}.png", depth(t) * 1000)
        (scene / "pose").mkdir(exist_ok=True)
        np.savetxt(scene / "pose" / f"{t}.txt", poses()[t] if t != 1 else np.full((4, 4), -np.inf))
    (scene / "intrinsic").mkdir()
    np.savetxt(scene / "intrinsic" / "intrinsic_depth.txt", np.diag([10.0, 11, 1, 1]))
    return root


def write_gmu(root):
    scene = root / "gmu_scene_001"
    for t in range(T):
        save_image(scene / "Images" / f"rgb_{t + 1}.png", np.zeros((2 * H, 2 * W, 3), np.uint8))
        save_png16(scene / "Depths" / f"depth_{t + 1}.png", np.kron(depth(t), np.ones((2, 2))) * 1000)
    return root


def write_ddad(root):
    scene = root / "000150"
    data, samples = [], []

    def entry(pose):
        w, x, y, z = poses_to_quaternions(pose[None])[0]
        tx, ty, tz = pose[:3, 3]
        rotation = {"qw": w, "qx": x, "qy": y, "qz": z}
        return {"rotation": rotation, "translation": {"x": tx, "y": ty, "z": tz}}

    for t in range(T):
        save_image(scene / "rgb" / "CAMERA_01" / f"{t}.png", rgb(t))
        rows, columns = np.meshgrid(np.arange(H), np.arange(W), indexing="ij")
        rays = np.stack([(columns - 3.5) / 10, (rows - 2.5) / 11, np.ones((H, W))], -1)
        points = (rays * depth(t)[..., None]).reshape(-1, 3) @ poses()[t][:3, :3].T + poses()[t][:3, 3]
        (scene / "point_cloud" / "LIDAR").mkdir(parents=True, exist_ok=True)
        lidar = np.eye(4)
        lidar[:3, 3] = [1, 2, 3]
        cloud = np.concatenate([points - lidar[:3, 3], np.ones((H * W, 1))], 1)
        np.savez(scene / "point_cloud" / "LIDAR" / f"{t}.npz", data=cloud)
        stamp = f"2020-01-01T00:00:0{t}.000000Z"
        image = {"filename": f"rgb/CAMERA_01/{t}.png", "pose": entry(poses()[t]), "height": H, "width": W}
        sweep = {"filename": f"point_cloud/LIDAR/{t}.npz", "pose": entry(lidar)}
        data += [
            {"key": f"c{t}", "id": {"name": "CAMERA_01", "timestamp": stamp}, "datum": {"image": image}},
            {"key": f"l{t}", "id": {"name": "LIDAR", "timestamp": stamp}, "datum": {"point_cloud": sweep}},
        ]
        samples.append({"calibration_key": "cal", "datum_keys": [f"c{t}", f"l{t}"]})
    (scene / "calibration").mkdir()
    k = {"fx": 10.0, "fy": 11.0, "cx": 3.5, "cy": 2.5, "skew": 0.0}
    calibration = {
        "names": ["LIDAR", "CAMERA_01"],
        "intrinsics": [dict.fromkeys(k, 0.0), k],
        "extrinsics": [{}, {}],
    }
    (scene / "calibration" / "cal.json").write_text(json.dumps(calibration))
    (scene / "scene_ab.json").write_text(json.dumps({"data": data, "samples": samples}))
    listing = {"scene_splits": {"1": {"filenames": ["000150/scene_ab.json", "000151/scene_gone.json"]}}}
    (root / "ddad.json").write_text(json.dumps(listing))
    return root


def write_diode(root):
    scan = root / "val" / "outdoor" / "scene_00022" / "scan_00193"
    save_image(scan / "00022_00193_outdoor_000_000.png", rgb(0))
    np.save(scan / "00022_00193_outdoor_000_000_depth.npy", depth(0)[..., None])
    mask = np.ones((H, W), np.float32)
    mask[0, 0] = 0
    np.save(scan / "00022_00193_outdoor_000_000_depth_mask.npy", mask)
    return root


def write_pavilion(root):
    scene = root / "chair"
    matrix = np.array([[10.0, 0, 4], [0, 11, 3], [0, 0, 1]])
    (scene / "cameras").mkdir(parents=True)
    for t in range(T):
        save_image(scene / "images" / "midday" / f"midday-640x-{t + 1:04d}.png", rgb(t))
        np.savetxt(scene / "cameras" / f"{t + 1:03d}.projmatrix", -2 * matrix @ np.linalg.inv(poses()[t])[:3])
    return scene


def write_nerfstudio(root):
    for t in range(T):
        save_image(root / "images" / f"{t}.png", rgb(t))
        save_png16(root / "depth" / f"{t}.png", depth(t) * 1000)
    matrix = np.tile([[10.0, 0, 4], [0, 11, 3], [0, 0, 1]], (T, 1, 1))
    files = [f"images/{t}.png" for t in range(T)]
    maps = [f"depth/{t}.png" for t in range(T)]
    save_nerfstudio(root / "transforms.json", NerfstudioModel(files, matrix, [(H, W)] * T, poses(), maps))
    return root


def write_colmap(root):
    for t in range(T):
        save_image(root / "images" / f"{t}.png", rgb(t))
    matrix = np.tile([[10.0, 0, 4], [0, 11, 3], [0, 0, 1]], (T, 1, 1))
    save_colmap(
        root / "sparse" / "0", ColmapModel([f"{t}.png" for t in range(T)], matrix, [(H, W)] * T, poses())
    )
    return root


def check_written(
    name: str,
    root: Path,
    *,
    has_depth: bool = True,
    has_poses: bool = True,
    count: int = T,
    num_posed: int = T,
    offset: float = 0.0,
    least_known: float = 0.7,
    intrinsics: str = "own",
    same_pictures: bool = True,
) -> Sequence:
    """What a reader gives of a tree is what was written into it: ``depth``, ``poses``, ``rgb``.

    Args:
        count: frames.
        num_posed: of them with a camera.
        offset: of the camera from the one that the poses are of, along its own x.
        least_known: share of the pixels that must have depth.
        intrinsics: ``own`` are those of the tree, ``none`` must be absent, ``other`` are the data set's.
    Returns:
        the sequence.
    """
    sequence = load_only(name, root)
    assert sequence.num_frames == count
    assert sequence.dataset == name
    assert (sequence.depth is not None) == has_depth
    assert (sequence.c2w is not None) == has_poses
    assert all(path.is_file() for path in sequence.files)
    if has_depth:
        assert sequence.size == (H, W)
        for t in range(count):
            found = sequence.depth[t]
            known = np.isfinite(found)
            assert known.mean() > least_known
            np.testing.assert_allclose(found[known], depth(t)[known], rtol=4e-3)
    if has_poses:
        known = np.isfinite(sequence.c2w).all(axis=(1, 2))
        assert known.sum() == num_posed
        expected = poses()
        expected[:, :3, 3] += expected[:, :3, 0] * offset
        np.testing.assert_allclose(sequence.c2w[known], expected[known], atol=1e-6)
    if intrinsics == "none":
        assert sequence.intrinsics is None
    elif intrinsics == "own":
        np.testing.assert_allclose(sequence.intrinsics[0], [[10, 0, 4], [0, 11, 3], [0, 0, 1]], atol=1e-9)
    if same_pictures:
        np.testing.assert_allclose(sequence.rgb[count - 1], rgb(count - 1) / 255, atol=0.02)
    return sequence


def check_recognised(name: str, root: Path) -> None:
    """The layout is found by its name and among all."""
    assert load_ground_truth(root, name).dataset == name
    assert load_ground_truth(root).dataset == name


def check_partial(name: str, root: Path, victim: Path) -> None:
    """Without one of its files the tree is refused, with where to get it."""
    victim.unlink()
    with pytest.raises(InputError) as error:
        load_only(name, root)
    assert load_reader(name).url in str(error.value)
