"""Cameras from tracks against ground truth, next to COLMAP in the same run.

    python benchmarks/cameras.py [--data DIR] [--colmap] [--only NAME ...] [--synthetic N] [--movers] [--cache DIR]
        [--recorded FILE] [--json FILE]

``--data`` holds the ground-truth samples (folders named as in ``SAMPLES``); ``--synthetic`` and ``--movers`` need
none. COLMAP is started at three focal lengths, as its result depends on the start; ours starts once, unattended. CPU
seconds count tracking and solving, no reading.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]

from geo4d.datasets.catalogue import load_reader  # noqa: E402
from geo4d.evidence.frames import fit_motion, iter_evidence  # noqa: E402
from geo4d.evidence.masks import grow, mask_iou, motion_masks  # noqa: E402
from geo4d.geometry.fit import fit_similarity  # noqa: E402
from geo4d.geometry.poses import rotation_angle, transform  # noqa: E402
from geo4d.synthetic.camera_paths import CameraKind  # noqa: E402
from geo4d.synthetic.render import make_scene, render_clip  # noqa: E402
from geo4d.synthetic.scene import SceneConfig, SceneKind, without_movers  # noqa: E402

SAMPLES = {
    "tartanair-office": ("tartanair", "tartanair-office-sample"),
    "hololens": ("hololens", "hololens-dvmvs-sample"),
    "tum-fr1-rpy": ("tum", "tum-fr1-rpy-sample"),
    "icl-nuim": ("iclnuim", "iclnuim-livingroom1-sample"),
}
COLMAP_FOCALS = (1.2, 0.85, 0.6)
SWEEP_WIDTH = 192


def score(c2w: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """ATE after a similarity (unit of the truth), mean and largest rotation error relative to frame 0 (degrees)."""
    centres, true_centres = c2w[:, :3, 3].double(), truth[:, :3, 3].double()
    aligned = transform(fit_similarity(centres, true_centres), centres)
    turn = c2w[0, :3, :3].double().T @ c2w[:, :3, :3].double()
    true_turn = truth[0, :3, :3].double().T @ truth[:, :3, :3].double()
    angle = torch.rad2deg(rotation_angle(turn.mT @ true_turn))
    return {
        "ate": float((aligned - true_centres).square().sum(1).mean().sqrt()),
        "rotation_mean_deg": float(angle.mean()),
        "rotation_max_deg": float(angle.max()),
    }


def ours(rgb: torch.Tensor, truth: torch.Tensor, K: torch.Tensor, depth: np.ndarray | None) -> dict[str, Any]:
    """One unattended start, then the sweep with our own cameras."""
    begin = time.process_time()
    motion = fit_motion(rgb)
    cpu = time.process_time() - begin
    result: dict[str, Any] = {
        **score(motion.c2w, truth),
        "focal": float(motion.intrinsics[:, 0, 0].median()),
        "true_focal": float(K[0, 0, 0]),
        "frames": int((motion.confidence > 0.1).sum()),
        "cpu_s": cpu,
        "shots": [s.statement for s in motion.shots],
    }
    if depth is not None:
        height = round(SWEEP_WIDTH * rgb.shape[1] / rgb.shape[2])
        small = [cv2.resize(f.numpy(), (SWEEP_WIDTH, height), interpolation=cv2.INTER_AREA) for f in rgb]
        begin = time.process_time()
        maps = list(iter_evidence(motion, [torch.from_numpy(f) for f in small]))
        result["sweep_cpu_s_per_frame"] = (time.process_time() - begin) / len(maps)
        reference = np.stack(
            [cv2.resize(d, (SWEEP_WIDTH, height), interpolation=cv2.INTER_NEAREST) for d in depth]
        )
        predicted = torch.stack([1 / m.disparity for m in maps]).numpy()
        confidence = torch.stack([m.confidence for m in maps]).numpy()
        known = np.isfinite(reference) & (reference > 0)
        sure = known & (confidence >= 0.2)
        ratio = predicted / np.where(known, reference, 1.0)
        ratio /= np.median(ratio[sure if sure.any() else known])
        good = np.maximum(ratio, 1 / ratio) < 1.25
        result["sweep_delta"] = float(good[known].mean())
        result["sweep_delta_confident"] = float(good[sure].mean()) if sure.any() else math.nan
        result["sweep_share_confident"] = float(sure.sum() / known.sum())
    return result


def colmap(rgb: torch.Tensor, truth: torch.Tensor, focal_share: float) -> dict[str, Any]:
    """Incremental mapping of SIFT matches between near frames, one shared unknown focal length."""
    import pycolmap

    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        pictures, database = Path(folder) / "images", Path(folder) / "database.db"
        pictures.mkdir()
        for t, frame in enumerate(rgb):
            bgr = (frame.numpy()[..., ::-1] * 255).round().astype(np.uint8)
            cv2.imwrite(str(pictures / f"{t:05d}.png"), bgr)
        reading = time.process_time() - begin
        options = pycolmap.ImageReaderOptions()
        options.camera_model = "SIMPLE_RADIAL"
        options.default_focal_length_factor = (
            focal_share  # a start, not a prior: the focal length stays unknown
        )
        pycolmap.extract_features(
            database, pictures, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=options
        )
        pycolmap.match_sequential(database)
        models = pycolmap.incremental_mapping(database, pictures, Path(folder) / "sparse")
        cpu = time.process_time() - begin - reading
        if not models:
            return {"start": focal_share, "frames": 0, "cpu_s": cpu}
        best = max(models.values(), key=lambda m: m.num_reg_images())
        frames, poses = [], []
        for image in best.images.values():
            if image.has_pose:
                w2c = np.eye(4)
                w2c[:3] = image.cam_from_world().matrix()
                frames.append(int(Path(image.name).stem))
                poses.append(np.linalg.inv(w2c))
        order = np.argsort(frames)
        focal = float(next(iter(best.cameras.values())).params[0])
    found = {"start": focal_share, "frames": len(frames), "focal": focal, "cpu_s": cpu}
    if len(frames) >= 3:
        c2w = torch.from_numpy(np.stack(poses)[order])
        found |= score(c2w, truth[torch.tensor(frames)[torch.from_numpy(order)]])
    return found


def synthetic(count: int) -> list[dict[str, Any]]:
    """Rendered scenes: cameras, and dynamic masks by intersection over union."""
    from geo4d.synthetic.heldout import iter_heldout

    rows = []
    for number, clip in enumerate(iter_heldout((288, 480), range(count))):
        rgb = clip.rgb.float() / 255
        begin = time.process_time()
        motion = fit_motion(rgb)
        camera_cpu = time.process_time() - begin
        begin = time.process_time()
        masks = torch.stack(list(motion_masks(motion, rgb)))
        mask_cpu = time.process_time() - begin
        path = float((clip.c2w[1:, :3, 3] - clip.c2w[:-1, :3, 3]).norm(dim=1).sum())
        rows.append(
            {
                "name": f"{number:02d} {clip.config.kind} {clip.config.camera}",
                **score(motion.c2w, clip.c2w),
                "path": path,
                "focal": float(motion.intrinsics[:, 0, 0].median()),
                "true_focal": float(clip.intrinsics[:, 0, 0].median()),
                "kind": motion.shots[0].kind,
                "dynamic_share": float(clip.dynamic.float().mean()),
                "mask_iou": mask_iou(masks, clip.dynamic),
                "cpu_s": camera_cpu,
                "mask_cpu_s": mask_cpu,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


MOVER_SCENES: tuple[tuple[int, SceneKind, CameraKind], ...] = (
    (910_007, "room", "dolly"),
    (910_030, "room", "orbit"),
    (910_033, "object_on_ground", "handheld"),
    (910_044, "object_on_ground", "handheld"),
    (910_061, "room", "handheld"),
    (910_078, "object_on_ground", "dolly"),
    (910_120, "flying", "dolly"),
    (910_154, "object_on_ground", "handheld"),
    (910_183, "room", "dolly"),
    (950_054, "room", "dolly"),
    (950_064, "room", "orbit"),
    (950_097, "room", "handheld"),
    (950_100, "object_on_ground", "dolly"),
    (950_120, "object_on_ground", "orbit"),
    (950_127, "object_on_ground", "handheld"),
    (950_128, "flying", "dolly"),
    (950_142, "flying", "orbit"),
    (950_153, "flying", "handheld"),
)
"""Seeds of rendered scenes whose movers cover a quarter to two thirds of the picture while the camera moves."""


def movers(cache: Path | None) -> list[dict[str, Any]]:
    """Cameras with movers, without them, and without them but with the pixels hidden that they would cover."""
    rows = []
    for seed, kind, camera in MOVER_SCENES:
        file = None if cache is None else cache / f"dyn_{seed}.npz"
        if file is not None and file.exists():
            arrays = dict(np.load(file))
        else:
            config = SceneConfig(seed, kind, camera, num_frames=24, fps=12.0, aspect=0.6, bank="heldout")
            scene = make_scene(config)
            clip = render_clip(scene, (288, 480))
            arrays = {
                "rgb": clip.rgb.numpy(),
                "still": render_clip(without_movers(scene), (288, 480)).rgb.numpy(),
                "dyn": clip.dynamic.numpy(),
                "K": clip.intrinsics.numpy(),
                "c2w": clip.c2w.double().numpy(),
            }
            if file is not None:
                np.savez(file, **arrays)
        truth, dynamic = torch.from_numpy(arrays["c2w"]), torch.from_numpy(arrays["dyn"])
        moving, still = (torch.from_numpy(arrays[k]).float() / 255 for k in ("rgb", "still"))
        begin = time.process_time()
        motion = fit_motion(moving)
        cpu = time.process_time() - begin
        ate = score(motion.c2w, truth)["ate"]
        ate_still = score(fit_motion(still).c2w, truth)["ate"]
        ate_hidden = score(fit_motion(still, masks=[grow(m, 4) for m in dynamic]).c2w, truth)["ate"]
        begin = time.process_time()
        found = torch.stack(list(motion_masks(motion, moving)))
        row = {
            "name": f"{seed} {kind} {camera}",
            "dynamic_share": float(dynamic.float().mean()),
            "path": float((truth[1:, :3, 3] - truth[:-1, :3, 3]).norm(dim=1).sum()),
            "ate": ate,
            "ate_without_movers": ate_still,
            "ate_without_movers_same_pixels_hidden": ate_hidden,
            "ratio": ate / ate_still,
            "ate_over_path": ate / float((truth[1:, :3, 3] - truth[:-1, :3, 3]).norm(dim=1).sum()),
            "focal": float(motion.intrinsics[:, 0, 0].median()),
            "true_focal": float(arrays["K"][:, 0, 0].mean()),
            "cpu_s": cpu,
            "mask_iou": mask_iou(found, dynamic),
            "mask_cpu_s": time.process_time() - begin,
        }
        rows.append(row)
        print("movers", json.dumps(row), flush=True)
    return rows


def recorded(file: Path) -> dict[str, Any]:
    """The recorded room: 1,000 published steps against our solver, both on the recorded tracks."""
    from parity_cameras import accuracy, load_windows

    from geo4d.cameras.published import published_adam, published_start
    from geo4d.cameras.solve import solve_with_depth
    from geo4d.geometry.cameras import centred_intrinsics
    from geo4d.tracks.types import Tracks

    case = np.load(file)
    windows = load_windows(case)
    truth = torch.from_numpy(case["gt_c2w"])
    start = published_start(torch.from_numpy(case["fov_init"]))
    begin = time.process_time()
    final, _ = published_adam(start, windows, 1000)
    published_cpu = time.process_time() - begin
    track, frame, xy, count = [], [], [], 0
    for s in case["window_starts"]:
        positions, visible = case[f"tracks_{s:05d}"], case[f"visible_{s:05d}"]
        for k in range(positions.shape[1]):
            seen = np.nonzero(visible[:, k])[0]
            track += [count] * len(seen)
            frame += list(seen + s)
            xy.append(positions[seen, k])
            count += 1
    depth = torch.from_numpy(case["point_map"].astype(np.float32))[..., 2]
    size = (depth.shape[1], depth.shape[2])
    starts = torch.zeros(len(depth), dtype=torch.bool)
    starts[0] = True
    tracks = Tracks(
        torch.tensor(track),
        torch.tensor(frame),
        torch.from_numpy(np.concatenate(xy)),
        len(depth),
        size,
        starts,
    )
    focal = 0.5 * size[1] / torch.tan(torch.from_numpy(case["fov_init"])[:, 0] / 2)
    begin = time.process_time()
    motion = solve_with_depth(tracks, depth, centred_intrinsics(focal.double(), size))
    cpu = time.process_time() - begin
    names = ("rmse", "rotation_mean_deg", "rotation_max_deg")
    return {
        "published": {**dict(zip(names, accuracy(final.c2w(), truth), strict=True)), "cpu_s": published_cpu},
        "ours": {**dict(zip(names, accuracy(motion.c2w, truth), strict=True)), "cpu_s": cpu},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="folder with the ground-truth samples")
    parser.add_argument("--only", nargs="+", default=list(SAMPLES), choices=list(SAMPLES))
    parser.add_argument("--colmap", action="store_true", help="also run COLMAP")
    parser.add_argument("--synthetic", type=int, default=0, help="number of rendered scenes")
    parser.add_argument("--movers", action="store_true", help="scenes with and without their movers")
    parser.add_argument("--cache", type=Path, default=None, help="folder that keeps the rendered scenes")
    parser.add_argument(
        "--recorded", type=Path, default=None, help="recorded case of the published objective"
    )
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "threads": torch.get_num_threads(),
        "samples": {},
    }
    for name in options.only if options.data is not None else ():
        reader_name, folder = SAMPLES[name]
        reader = load_reader(reader_name)
        sequence_name, path = next(iter(reader.find(options.data / folder).items()))
        sequence = reader.load(path, sequence_name)
        assert sequence.rgb is not None
        assert sequence.c2w is not None
        assert sequence.intrinsics is not None
        rgb = torch.from_numpy(np.asarray(sequence.rgb[:], np.float32))
        truth = torch.from_numpy(np.asarray(sequence.c2w, np.float64))
        scale = rgb.shape[2] / sequence.size[1]
        K = torch.from_numpy(np.asarray(sequence.intrinsics, np.float64)) * scale
        depth = None if sequence.depth is None else np.asarray(sequence.depth[:], np.float32)
        row = {"frames": len(rgb), "ours": ours(rgb, truth, K, depth)}
        print(name, json.dumps(row["ours"]), flush=True)
        if options.colmap:
            row["colmap"] = [colmap(rgb, truth, share) for share in COLMAP_FOCALS]
            for found in row["colmap"]:
                print(f"{name} COLMAP", json.dumps(found), flush=True)
        results["samples"][name] = row
    if options.recorded is not None:
        results["recorded"] = recorded(options.recorded)
        print("recorded", json.dumps(results["recorded"]))
    if options.synthetic:
        results["synthetic"] = synthetic(options.synthetic)
    if options.movers:
        results["movers"] = movers(options.cache)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
