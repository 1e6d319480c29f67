"""R22: every export format, read back by libraries and rules that share no code with the package."""

import json
from pathlib import Path

import numpy as np

from benchmarks.faults import clips
from benchmarks.faults.harness import Outcome, Size, Tally, command, reconstruct, reliability, tree_sha256

EVERYTHING = ("--min-confidence", "0", "--edge-step", "0", "--max-points", "0")
WITH_POINTS = ("ply", "glb", "usd", "colmap", "nerfstudio", "rrd", "mcap")
EXTRAS = {"usd": ("pxr", "usd"), "rrd": ("rerun.chunk", "rerun"), "mcap": ("mcap.writer", "ros")}
"""Formats whose packages are extras: the module that is looked for, and the extra."""


def target_name(format_name: str) -> str:
    """The file that a format writes, where it can hold all frames in one; else a folder."""
    from geo4d.export import FORMATS

    suffixes = FORMATS[format_name].suffixes
    single = suffixes and format_name not in ("exr", "png")  # these have a file for every frame
    return f"{format_name}{suffixes[0]}" if single else format_name


@reliability(
    "R22",
    "exports read back by other libraries",
    "points to 1e-5, poses to 1e-6, reprojection to 0.01 px; nothing replaced without --overwrite",
)
def r22(folder: Path, size: Size) -> Outcome:
    import geo4d
    from geo4d.export import FORMATS

    clip = clips.write(folder / "clip.mp4", 12)
    source = folder / "result"
    ended = reconstruct(clip, source, "--precision", "float32")
    if ended.code != 0:
        return Outcome(False, ended.last)
    result, tally = geo4d.load(source), Tally()
    missing = {name for name, (module, _) in EXTRAS.items() if not _found(module)}
    for name in FORMATS:
        words = EVERYTHING if name in WITH_POINTS else ()
        words = ("export", source, "--format", name, "-o", folder / target_name(name), *words)
        ended = command(*words)
        if name in missing:
            told = ended.code == 6 and ended.told and f"geo4d[{EXTRAS[name][1]}]" in ended.err
            tally.case(f"export {name} without its extra", told, ended.last)
            continue
        tally.case(f"export {name}", ended.code == 0, ended.last)
        before = tree_sha256(folder / target_name(name))
        ended = command(*words)
        same = tree_sha256(folder / target_name(name)) == before
        told = ended.code == 4 and ended.told and "--overwrite" in ended.err
        tally.case(f"export {name} onto itself", told and same, f"unchanged: {same}; {ended.last}")
        ended = command(*words, "--overwrite")
        tally.case(f"export {name} --overwrite", ended.code == 0 and ended.told, ended.last)
    for name in FORMATS:
        if name in missing:
            continue
        try:
            error, limit = CHECKS[name](folder, result)
        except Exception as problem:
            tally.case(f"read {name}", False, f"{type(problem).__name__}: {problem}")
        else:
            tally.case(f"read {name}", error <= limit, f"{error:.3g} where {limit:g} is allowed")
    error, limit = _check_zarr(folder, result)
    tally.case("read the result itself", error <= limit, f"{error:.3g}")
    return tally.outcome(
        f"not installed: {', '.join(sorted(missing))}" if missing else f"{len(FORMATS)} formats"
    )


def _found(module: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _frame_points(result, t: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """World points [N, 3] and pixels [N, 2] of a frame's finite depths, by the pinhole equation as it stands here."""
    height, width = result.size
    rows, columns = np.mgrid[:height, :width] + 0.5
    z, k = np.asarray(result.depth[t], np.float64), np.asarray(result.intrinsics[t], np.float64)
    camera = np.stack([(columns - k[0, 2]) / k[0, 0] * z, (rows - k[1, 2]) / k[1, 1] * z, z], -1)
    pose = np.asarray(result.c2w[t], np.float64)
    world = camera @ pose[:3, :3].T + pose[:3, 3]
    kept = np.isfinite(world).all(-1)
    return world[kept], np.stack([columns, rows], -1)[kept]


def _world_points(result) -> np.ndarray:  # type: ignore[no-untyped-def]
    """[N, 3] of all finite pixels, frame after frame."""
    return np.concatenate([_frame_points(result, t)[0] for t in range(result.num_frames)])


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    if found.shape != wanted.shape:
        raise ValueError(f"expected {wanted.shape}, got {found.shape}")
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _check_npz(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    with np.load(folder / target_name("npz"), allow_pickle=False) as arrays:
        depth = float(np.nanmax(np.abs(arrays["depth"] - result.depth[:])))
        return max(depth, float(np.abs(arrays["c2w"] - result.c2w).max())), 1e-6


def _check_zarr(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    import zarr

    group = zarr.open_group(folder / "result/arrays.zarr", mode="r")
    return float(np.nanmax(np.abs(group["depth"][...] - result.depth[:]))), 0.0


def _check_exr(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    import OpenEXR

    path = sorted((folder / "exr").glob("*.exr"))[3]
    stored = OpenEXR.File(str(path), separate_channels=True).channels()["Z"].pixels
    return float(np.nanmax(np.abs(stored - result.depth[3]))), 0.0


def _check_points(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    import trimesh

    return _relative(
        np.asarray(trimesh.load(folder / target_name("ply")).vertices), _world_points(result)
    ), 1e-5


def _check_glb(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    import trimesh

    scene = trimesh.load_scene(folder / target_name("glb"))
    points = np.concatenate(
        [
            trimesh.transform_points(scene.geometry[scene.graph[node][1]].vertices, scene.graph[node][0])
            for node in scene.graph.nodes_geometry
        ]
    )
    return _relative(points, _world_points(result) * [1, -1, -1]), 1e-5


def _check_tum(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    from scipy.spatial.transform import Rotation

    rows = np.loadtxt(folder / target_name("tum"))
    turn = np.abs(Rotation.from_quat(rows[:, 4:8]).as_matrix() - result.c2w[:, :3, :3]).max()
    return float(
        max(
            turn, np.abs(rows[:, 1:4] - result.c2w[:, :3, 3]).max(), np.abs(rows[:, 0] - result.times_s).max()
        )
    ), 1e-6


def _check_kitti(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    return float(
        np.abs(np.loadtxt(folder / target_name("kitti")).reshape(-1, 3, 4) - result.c2w[:, :3]).max()
    ), 1e-6


def _check_colmap(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    import pycolmap

    model = pycolmap.Reconstruction(str(folder / "colmap/sparse/0"))
    errors = [0.0]
    for number, image in enumerate(sorted(model.images.values(), key=lambda image: image.name)):
        pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        w2c = np.eye(4)
        w2c[:3] = pose.matrix()
        errors.append(_PER_POSE * float(np.abs(np.linalg.inv(w2c) - result.c2w[number]).max()))
        camera = model.cameras[image.camera_id]
        for seen in image.points2D:
            if seen.has_point3D():
                point = w2c[:3, :3] @ model.points3D[seen.point3D_id].xyz + w2c[:3, 3]
                errors.append(float(np.abs(np.asarray(camera.img_from_cam(point)) - seen.xy).max()))
    return float(np.max(errors)), 0.01  # not a number, if one is not


def _check_nerfstudio(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    frames = json.loads((folder / "nerfstudio/transforms.json").read_text())["frames"]
    poses = np.array([frame["transform_matrix"] for frame in frames]) @ np.diag([1, -1, -1, 1])
    wanted = np.asarray(result.c2w, np.float64)
    turn = np.abs(poses[:, :3, :3] - wanted[:, :3, :3]).max()
    moves, ours = poses[:, :3, 3] - poses[0, :3, 3], wanted[:, :3, 3] - wanted[0, :3, 3]
    scale = (moves * ours).sum() / max((ours**2).sum(), 1e-30)  # one factor for the whole scene is allowed
    return float(max(turn, np.abs(moves - scale * ours).max() / max(scale, 1e-30))), 1e-6


def _check_png(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    import cv2

    step = json.loads((folder / "png/depth.json").read_text())["depth_step"]
    path = sorted((folder / "png").glob("*.png"))[3]
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64) * step
    depth = np.asarray(result.depth[3], np.float64)
    return float(np.nanmax(np.abs(np.where(np.isfinite(depth), stored - depth, 0)))), 0.51 * step


def _check_preview(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    import cv2

    movie = cv2.VideoCapture(str(folder / target_name("preview")))
    count = 0
    while movie.read()[0]:
        count += 1
    return float(abs(count - result.num_frames)), 0.0


# Three bars in one number: points count a hundredth of a pixel per 1e-5, poses per 1e-6.
_PER_POINT, _PER_POSE = 1e3, 1e4


def _check_usd(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    from pxr import Usd

    from tests.readers_of_targets import usd

    stage = Usd.Stage.Open(str(folder / target_name("usd")))
    errors = [0.0]
    for t in range(result.num_frames):
        wanted, pixels = _frame_points(result, t)
        points = usd.world_points(stage, "/World/Points", t + 1)
        errors.append(_PER_POINT * _relative(points, wanted * [1, -1, -1]))
        errors.append(float(np.abs(usd.project(stage, t + 1, points, result.size) - pixels).max()))
    return float(np.max(errors)), 0.01  # not a number, if one is not


def _check_nuke(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    from tests.readers_of_targets import nuke

    nodes = nuke.load_script(folder / target_name("nuke"))
    errors = [0.0]
    for t in range(result.num_frames):
        points, pixels = _frame_points(result, t)
        errors.append(float(np.abs(nuke.project(nodes, t + 1, points * [1, -1, -1]) - pixels).max()))
    return float(np.max(errors)), 0.01  # not a number, if one is not


def _check_chan(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    from tests.readers_of_targets import nuke

    path = folder / target_name("chan")
    aspect = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["pixel_aspect"]
    errors = [0.0]
    for t in range(result.num_frames):
        points, pixels = _frame_points(result, t)
        seen = nuke.project_chan(path, t + 1, points * [1, -1, -1], result.size, aspect)
        errors.append(float(np.abs(seen - pixels).max()))
    return float(np.max(errors)), 0.01  # not a number, if one is not


def _check_rrd(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    from rerun.chunk import RrdReader

    rows: dict[str, list[dict]] = {}
    for chunk in RrdReader(str(folder / target_name("rrd"))).stream().to_chunks():
        rows.setdefault(chunk.entity_path, []).extend(chunk.to_record_batch().to_pylist())
    c2w = np.asarray(result.c2w, np.float64)
    reach = max(1.0, float(np.abs(c2w[:, :3, 3]).max()))
    lenses = [row for row in rows["/world/camera/picture"] if row.get("Pinhole:image_from_camera")]
    errors = [0.0]
    for points, pose, lens in zip(rows["/world/points"], rows["/world/camera"], lenses, strict=True):
        t = int(points["frame"])
        wanted, pixels = _frame_points(result, t)
        found = np.array(points["Points3D:positions"])
        turn = np.array(pose["Transform3D:mat3x3"][0]).reshape(3, 3).T  # columns come first
        place = np.array(pose["Transform3D:translation"][0])
        pinhole = np.array(lens["Pinhole:image_from_camera"][0]).reshape(3, 3).T
        error = max(np.abs(turn - c2w[t, :3, :3]).max(), np.abs(place - c2w[t, :3, 3]).max() / reach)
        seen = (found - place) @ turn @ pinhole.T
        errors += [_PER_POSE * float(error), _PER_POINT * _relative(found, wanted)]
        errors.append(float(np.abs(seen[:, :2] / seen[:, 2:] - pixels).max()))
    return float(np.max(errors)), 0.01  # not a number, if one is not


def _check_mcap(folder: Path, result) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    from tests.readers_of_targets import ros

    topics, _ = ros.load(folder / target_name("mcap"))
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # +z up, +y forward
    errors = [0.0]
    for t in range(result.num_frames):
        wanted, pixels = _frame_points(result, t)
        fields = ros.cloud(topics["/points"][t][1])
        found = np.stack([fields[axis] for axis in "xyz"], 1).astype(np.float64)
        moved = topics["/tf"][t][1].transforms[0].transform
        pose = ros.matrix(moved.translation, moved.rotation)
        seen = (
            (found - pose[:3, 3])
            @ pose[:3, :3]
            @ np.array(topics["/camera/camera_info"][t][1].k).reshape(3, 3).T
        )
        errors.append(_PER_POINT * _relative(found, wanted @ turn.T))
        errors.append(float(np.abs(seen[:, :2] / seen[:, 2:] + 0.5 - pixels).max()))
    return float(np.max(errors)), 0.01  # not a number, if one is not


CHECKS = {
    "npz": _check_npz, "exr": _check_exr, "png": _check_png, "ply": _check_points, "glb": _check_glb, "usd": _check_usd,
    "nuke": _check_nuke, "chan": _check_chan, "tum": _check_tum, "kitti": _check_kitti, "colmap": _check_colmap,
    "nerfstudio": _check_nerfstudio, "rrd": _check_rrd, "mcap": _check_mcap, "preview": _check_preview,
}  # fmt: skip
"""A check of every format: largest error, and what is allowed. A new format without one fails."""
