"""Trees in the real layouts of training sets, written from the plane of ``planes``."""

import csv
import gzip
import json

import numpy as np

from geo4d.formats.cameras import poses_to_quaternions
from geo4d.formats.images import save_exr, save_image, save_png16
from tests.support.planes import HOLE, SKY, H, T, W, rgb, truth

COLUMNS = ("name", "x", "y", "z", "yaw", "pitch", "roll", "focal_length", "sensor_width", "sensor_height")
"""Of BEDLAM's camera files."""


def marked(values: np.ndarray, *, sky: float | None, hole: float | None) -> np.ndarray:
    values = values.copy()
    if sky is not None:
        values[SKY] = sky
    if hole is not None:
        values[HOLE] = hole
    return values


def save_npz_like(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def save_hdf5(path, **arrays):
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name.replace("__", "/")] = values


def save_half(path, values):
    """Bits of half-precision numbers as a PNG of 16 bits."""
    with np.errstate(over="ignore"):
        save_png16(path, values.astype(np.float16).view(np.uint16).astype(np.float32))


def save_map(path, values, channel="Y"):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_exr(path, {channel: values.astype(np.float32)})


def write_spring(root):
    scene, known = root / "train" / "0001", truth()
    for t in range(T):
        number = f"{t + 1:04d}"
        save_image(scene / "frame_left" / f"frame_left_{number}.png", rgb(t))
        disparity = marked(10.0 * 0.065 / known.depth(t), sky=0.0, hole=np.nan)
        double = np.full((2 * H, 2 * W), 999.0)
        double[::2, ::2] = disparity
        save_hdf5(scene / "disp1_left" / f"disp1_left_{number}.dsp5", disparity=double)
        sky = np.zeros((2 * H, 2 * W, 3), np.uint8)
        sky[2 * SKY[0], 2 * SKY[1]] = 255
        save_image(scene / "maps" / "skymap_left" / f"skymap_left_{number}.png", sky)
    (scene / "cam_data").mkdir()
    np.savetxt(scene / "cam_data" / "intrinsics.txt", [[10, 11, 4, 3]] * T)
    np.savetxt(scene / "cam_data" / "extrinsics.txt", np.linalg.inv(known.c2w).reshape(T, 16))
    return known


def write_bedlam(root):
    scene, sequence = root / "20221024_3-10_100_batch01", "seq_000000"
    known = truth(9.0, 12.0)
    rows = []
    for t in range(T):
        yaw, pitch, roll = np.deg2rad([4.0 + 5 * t, -3.0 - 2 * t, 2.0 + t])
        forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
        level_right = np.array([-np.sin(yaw), np.cos(yaw), 0])
        level_up = np.array([-np.sin(pitch) * np.cos(yaw), -np.sin(pitch) * np.sin(yaw), np.cos(pitch)])
        right = np.cos(roll) * level_right - np.sin(roll) * level_up  # clockwise: the right side goes down
        up = np.sin(roll) * level_right + np.cos(roll) * level_up
        place = np.array([10.0 * t, 20.0 * t, -5.0 * t])  # cm; forward, right, up

        def to_world(v):
            return np.array([v[1], -v[2], v[0]])

        known.c2w[t, :3, :3] = np.stack([to_world(right), to_world(-up), to_world(forward)], 1)
        known.c2w[t, :3, 3] = to_world(place) / 100
        name = f"{sequence}_{5 * t:04d}"
        save_image(scene / "png" / sequence / f"{name}.png", rgb(t))
        save_map(
            scene / "depth" / sequence / f"{name}_depth.exr",
            marked(known.depth(t) * 100, sky=None, hole=6e5),
            "Depth",
        )
        angles = np.rad2deg([yaw, pitch, roll])
        rows.append([f"{name}.png", *place, *angles, 9.0 / W * 36, 36, 9.0 / W * 36 * H / 12])
    save_image(scene / "png" / sequence / f"{sequence}_0001.png", rgb(0))  # a picture without depth
    (scene / "ground_truth" / "camera").mkdir(parents=True)
    with (scene / "ground_truth" / "camera" / f"{sequence}_camera.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return known


def write_pointodyssey(root):
    sequence, known = root / "train" / "ani", truth()
    for t in range(T):
        save_image(sequence / "rgbs" / f"rgb_{t:05d}.jpg", rgb(t))
        values = marked(known.depth(t) * 65.535, sky=65535, hole=0)
        save_png16(sequence / "depths" / f"depth_{t:05d}.png", values)
    save_npz_like(
        sequence / "anno.npz",
        intrinsics=np.tile(known.intrinsics, (T, 1, 1)),
        extrinsics=np.linalg.inv(known.c2w),
    )
    return known


def table_of_poses(known, camera=False):
    names = [f"r{i},{j}" if j < 4 else f"t{i}" for i in (1, 2, 3) for j in (1, 2, 3, 4)]
    lines = [" ".join(["frame", *(["cameraID"] if camera else []), *names, "0 0 0 1"])]
    for t, w2c in enumerate(np.linalg.inv(known.c2w)):
        for number in (0, 1) if camera else (0,):
            shifted = w2c[:3] + number * 7  # the second camera must not be read
            lines.append(
                " ".join(map(str, [t, *([number] if camera else []), *shifted.reshape(-1), 0, 0, 0, 1]))
            )
    return "\n".join(lines) + "\n"


def write_vkitti(root):
    known = truth(725, 725, 621.0, 187.5)
    for t in range(T):
        save_image(root / "vkitti_1.3.1_rgb" / "0001" / "clone" / f"{t:05d}.png", rgb(t))
        values = marked(known.depth(t) * 100, sky=65535, hole=0)
        save_png16(root / "vkitti_1.3.1_depthgt" / "0001" / "clone" / f"{t:05d}.png", values)
    (root / "vkitti_1.3.1_extrinsicsgt").mkdir()
    (root / "vkitti_1.3.1_extrinsicsgt" / "0001_clone.txt").write_text(table_of_poses(known))
    return known


def write_vkitti2(root):
    base, known = root / "Scene01" / "clone", truth()
    for t in range(T):
        for camera in (0, 1):
            save_image(base / "frames" / "rgb" / f"Camera_{camera}" / f"rgb_{t:05d}.jpg", rgb(t))
            values = marked(known.depth(t) * 100, sky=65535, hole=0) + 100 * camera
            save_png16(
                base / "frames" / "depth" / f"Camera_{camera}" / f"depth_{t:05d}.png", values.clip(0, 65535)
            )
    lines = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
    lines += [f"{t} {camera} {10 + camera} 11 3.5 2.5" for t in range(T) for camera in (0, 1)]
    (base / "intrinsic.txt").write_text("\n".join(lines) + "\n")
    (base / "extrinsic.txt").write_text(table_of_poses(known, camera=True))
    return known


def write_dynamic_replica(root):
    split, name, known = root / "train", "009850-3_obj_source_left", truth()
    flip = np.diag([-1.0, -1, 1])
    entries = []
    for t in range(T):
        save_image(split / name / "images" / f"{name}-{t:04d}.png", rgb(t))
        save_half(
            split / name / "depths" / f"{name}_{t:04d}.geometric.png",
            marked(known.depth(t), sky=None, hole=0),
        )
        moves = np.zeros((H, W, 3), np.uint8)
        moves[4] = 255
        save_image(split / name / "masks" / f"{name}_{t:04d}.png", moves)
        w2c = np.linalg.inv(known.c2w[t])
        viewpoint = {
            "R": (flip @ w2c[:3, :3]).T.tolist(),
            "T": (flip @ w2c[:3, 3]).tolist(),
            "focal_length": [10 / 3, 11 / 3],
            "principal_point": [0.0, 0.0],
            "intrinsics_format": "ndc_isotropic",
        }
        entries.append(
            {
                "sequence_name": "009850-3_obj",
                "frame_number": t,
                "camera_name": "left",
                "image": {"path": f"{name}/images/{name}-{t:04d}.png", "size": [H, W]},
                "depth": {"path": f"{name}/depths/{name}_{t:04d}.geometric.png"},
                "mask": {"path": f"{name}/masks/{name}_{t:04d}.png"},
                "viewpoint": viewpoint,
            }
        )
    with gzip.open(split / "frame_annotations_train.jgz", "wt") as file:
        json.dump(entries[::-1], file)
    return known


def write_gta_sfm(root):
    import cv2

    known = truth()
    arrays = {}
    for t in range(T):
        arrays[f"image_{t}"] = cv2.imencode(".png", rgb(t)[..., ::-1])[1].reshape(-1)
        arrays[f"depth_{t}"] = marked(known.depth(t), sky=None, hole=1e4).astype(np.float32)
        arrays[f"K_{t}"], arrays[f"pose_{t}"] = known.intrinsics, known.c2w[t]
    save_hdf5(root / "train" / "20190127_160708.h5", **arrays)
    return known


def write_hypersim(root, tilt=None):
    scene, known = root / "ai_001_001", truth()
    from_uv = np.array([[W / 2, 0, W / 2], [0, -H / 2, H / 2], [0, 0, 1]])
    tilt = np.eye(3) if tilt is None else tilt  # from the pinhole camera's axes to the stored one's
    rays_gl = tilt @ np.diag([1.0, -1, -1]) @ np.linalg.inv(known.intrinsics) @ from_uv
    facts = {"scene_name": "ai_001_001", "settings_output_img_height": H, "settings_output_img_width": W}
    facts |= {"settings_units_info_meters_scale": 0.01}
    facts |= {f"M_cam_from_uv_{i}{j}": rays_gl[i, j] for i in range(3) for j in range(3)}
    root.mkdir(exist_ok=True)
    (root / "metadata_camera_parameters.csv").write_text(
        ",".join(facts) + "\n" + ",".join(map(str, facts.values())) + "\n"
    )
    images = scene / "images"
    for t in range(T):
        distance = known.depth(t) * np.linalg.norm(known.rays(), axis=-1)
        geometry = images / "scene_cam_00_geometry_hdf5"
        save_hdf5(
            geometry / f"frame.{t:04d}.depth_meters.hdf5", dataset=marked(distance, sky=np.nan, hole=np.nan)
        )
        entity = np.ones((H, W), np.int16)
        entity[SKY] = -1
        save_hdf5(geometry / f"frame.{t:04d}.render_entity_id.hdf5", dataset=entity)
        linear = (rgb(t) / 255) ** 2.2
        save_hdf5(images / "scene_cam_00_final_hdf5" / f"frame.{t:04d}.color.hdf5", dataset=linear)
    orientation = known.c2w[:, :3, :3] @ np.diag([1.0, -1, -1]) @ tilt.T
    camera = scene / "_detail" / "cam_00"
    save_hdf5(camera / "camera_keyframe_orientations.hdf5", dataset=orientation)
    save_hdf5(camera / "camera_keyframe_positions.hdf5", dataset=known.c2w[:, :3, 3] * 100)
    return known


def write_irs(root):
    folder, known = root / "Home" / "Bedroom", truth(480, 480)
    for t in range(T):
        save_image(folder / f"l_{t + 8}.png", rgb(t))
        save_map(folder / f"d_{t + 8}.exr", marked(48 / known.depth(t), sky=None, hole=0), "G")
    return known


def write_matrixcity(root):
    known = truth(fy=10.0)
    inner = "street/train_dense/small_city_road_down_dense"
    block = root / "small_city" / inner
    frames = []
    for t in range(T):
        save_image(block / f"{t + 3:04d}.png", rgb(t))
        save_map(
            root / "small_city_depth" / f"{inner}_depth" / f"{t + 3:04d}.exr",
            marked(known.depth(t) * 100, sky=65504, hole=0),
            "R",
        )
        matrix = known.c2w[t] @ np.diag([1.0, -1, -1, 1])
        matrix[:3, :3] /= 100
        frames.append({"frame_index": t + 3, "rot_mat": matrix.tolist()})
    facts = {"camera_angle_x": 2 * np.arctan(W / 2 / 10.0), "frames": frames[::-1]}
    (block / "transforms_origin.json").write_text(json.dumps(facts))
    return known


def write_midair(root):
    climate, known = root / "Kite_training" / "sunny", truth(W / 2, W / 2)
    to_ned = np.array(
        [[0, 0, 1.0], [1, 0, 0], [0, 1, 0]]
    )  # x forward = our z, y right = our x, z down = our y
    body = known.c2w.copy()
    body[:, :3, :3] = to_ned @ body[:, :3, :3] @ to_ned.T
    body[:, :3, 3] = body[:, :3, 3] @ to_ned.T
    rows = np.full((4 * T, 7), 99.0)
    rows[::4] = np.concatenate([body[:, :3, 3], poses_to_quaternions(body)], 1)
    for t in range(T):
        save_image(climate / "color_left" / "trajectory_0001" / f"{t:06d}.jpg", rgb(t))
        distance = known.depth(t) * np.linalg.norm(known.rays(), axis=-1)
        save_half(climate / "depth" / "trajectory_0001" / f"{t:06d}.png", marked(distance, sky=6e4, hole=0))
    save_hdf5(
        climate / "sensor_records.hdf5",
        trajectory_0001__groundtruth__position=rows[:, :3],
        trajectory_0001__groundtruth__attitude=rows[:, 3:],
    )
    return known


def write_mvs_synth(root):
    sequence, known = root / "GTAV_720" / "0000", truth()
    for t in range(T):
        save_image(sequence / "images" / f"{t:04d}.png", rgb(t))
        save_map(sequence / "depths" / f"{t:04d}.exr", marked(known.depth(t), sky=np.inf, hole=0))
        # A left-handed world, y up: points of ours with y turned round.
        extrinsic = np.linalg.inv(known.c2w[t]) @ np.diag([1.0, -1, 1, 1])
        facts = {"f_x": 10, "f_y": 11, "c_x": 4, "c_y": 3, "extrinsic": extrinsic.tolist()}
        (sequence / "poses").mkdir(exist_ok=True)
        (sequence / "poses" / f"{t:04d}.json").write_text(json.dumps(facts))
    return known


def write_structured3d(root):
    known = truth()
    for t in range(T):
        folder = root / "scene_00000" / "2D_rendering" / "485142" / "perspective" / "full" / str(t)
        save_image(folder / "rgb_rawlight.png", rgb(t))
        save_png16(folder / "depth.png", marked(known.depth(t) * 1000, sky=None, hole=0))
        _, down, forward = known.c2w[t, :3, :3].T
        row = [*(known.c2w[t, :3, 3] * 1000), *forward, *-down, np.arctan(4 / 10), np.arctan(3 / 11), 1]
        (folder / "camera_pose.txt").write_text(" ".join(map(str, row)))
    return known


def write_synthia(root):
    base, known = root / "SYNTHIA-SEQS-01-DAWN", truth(fy=10.0)
    for t in range(T):
        save_image(base / "RGB" / "Stereo_Left" / "Omni_F" / f"{t:06d}.png", rgb(t))
        values = marked(known.depth(t) * 100, sky=65000, hole=0)
        save_png16(base / "Depth" / "Stereo_Left" / "Omni_F" / f"{t:06d}.png", values)
    (base / "CameraParams").mkdir()
    (base / "CameraParams" / "intrinsics.txt").write_text("10.0\n\n4.0\n\n3.0\n\n0.8\n")
    return known


def write_urbansyn(root):
    known = truth()
    for t in range(T):
        save_image(root / "rgb" / f"rgb_{t + 1:04d}.png", rgb(t))
        save_map(
            root / "depth" / f"depth_{t + 1:04d}.exr", marked(known.depth(t) / 1e5, sky=None, hole=0), "R"
        )
        labels = np.full((H, W, 3), 2, np.uint8)
        labels[SKY] = 10
        save_image(root / "ss" / f"ss_{t + 1:04d}.png", labels)
    camera = {"focalLength_mm": 10.0, "sensorWidth_mm": float(W), "sensorHeight_mm": H * 10 / 11}
    (root / "camera_metadata.json").write_text(json.dumps({"parameters": [{"Camera": camera}]}))
    return known
