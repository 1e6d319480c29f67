"""The bundled model and its main job on the device, against the same on the CPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.on_gpu.networks import relative_error
from benchmarks.on_gpu.steps import Bench, Step
from geo4d.geometry.cameras import resize_intrinsics, unproject
from geo4d.types import EvidenceMaps, Prediction, Window

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def clip_frames(most: int | None = None) -> np.ndarray:
    """The example clip, [T, H, W, 3] uint8, by whichever decoder is there."""
    try:
        import av
    except ImportError:
        import cv2

        capture, frames = cv2.VideoCapture(str(EXAMPLES / "clip.mp4")), []
        while (found := capture.read())[0]:
            frames.append(found[1][..., ::-1])
        capture.release()
    else:
        with av.open(str(EXAMPLES / "clip.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if len(frames) < 4:
        raise ValueError(f"expected the frames of {EXAMPLES / 'clip.mp4'}, read {len(frames)}")
    return np.stack(frames[:most])


def true_window(count: int, size: tuple[int, int]) -> tuple[Window, EvidenceMaps]:
    """The clip's first frames at the size of the network, and its true geometry as evidence with gaps."""
    rgb = torch.from_numpy(clip_frames(count)).float().div(255).movedim(-1, 1)
    rgb = interpolate(rgb, size, mode="bilinear", align_corners=False, antialias=True).movedim(1, -1)
    truth = EXAMPLES / "clip_truth"
    depth = torch.from_numpy(
        np.stack(
            [np.load(truth / "depth" / f"{t:06d}.npz")["depth"].astype(np.float32) for t in range(count)]
        )
    )
    source = (depth.shape[1], depth.shape[2])
    depth = interpolate(depth[:, None], size, mode="nearest")[:, 0]
    fx, fy, cx, cy = np.loadtxt(truth / "intrinsics.txt", dtype=np.float32)[:count].T
    matrix = torch.zeros(count, 3, 3)
    for (row, column), values in zip(((0, 0), (1, 1), (0, 2), (1, 2)), (fx, fy, cx, cy), strict=True):
        matrix[:, row, column] = torch.from_numpy(values)
    matrix[:, 2, 2] = 1
    intrinsics = resize_intrinsics(matrix, source, size)
    finite = torch.isfinite(depth) & (depth > 0)
    mask = finite & (rgb.mean(-1) > 0.35)
    poses = np.loadtxt(truth / "poses.txt", dtype=np.float64)[:count]
    window = Window(rgb, torch.arange(count), torch.arange(count).double() / 16, 0, 16.0, pixel_aspect=1.0)
    return window, EvidenceMaps(
        points=unproject(torch.where(finite, depth, 1.0), intrinsics),
        mask=mask,
        confidence=mask.float() * 0.9,
        intrinsics=intrinsics,
        c2w=_matrices(poses),
        camera_confidence=torch.full((count,), 0.9),
        log_depth_spread=torch.full_like(depth, 0.05),
    )


def _matrices(poses: np.ndarray) -> Tensor:
    """Rows of time, position and quaternion xyzw to matrices."""
    from scipy.spatial.transform import Rotation

    matrices = np.tile(np.eye(4), (len(poses), 1, 1))
    matrices[:, :3, :3] = Rotation.from_quat(poses[:, 4:8]).as_matrix()
    matrices[:, :3, 3] = poses[:, 1:4]
    return torch.from_numpy(matrices).float()


def compare_predictions(found: Prediction, reference: Prediction) -> dict[str, Any]:
    """Differences of all maps; the share of pixels that are valid in one of them alone."""
    rows: dict[str, Any] = {}
    for name, value in reference.tensors().items():
        other = found.tensors()[name]
        if value.dtype == torch.bool:
            rows[name] = float((other != value).float().mean())
        elif value.is_floating_point() and name != "times_s":
            rows[name] = relative_error(other, value)
    return rows


def tiny_window(bench: Bench, result: dict[str, Any]) -> None:
    """One window with evidence: float32 and bfloat16 on the device against float32 on the CPU."""
    from geo4d.models.base import load_predictor

    count = 4 if bench.smallest else 16
    plain = load_predictor("tiny", device="cpu", dtype="float32")
    window, evidence = true_window(count, plain.size_for((192, 320)))
    reference = plain.predict(window, seed=0, evidence=evidence)
    result["cpu"] = bench.median_seconds(lambda: plain.predict(window, seed=0, evidence=evidence), 1)
    for dtype in ("float32", "bfloat16", "float16") if bench.device.type == "cuda" else ("bfloat16",):
        predictor = load_predictor("tiny", device=str(bench.device), dtype=dtype)  # type: ignore[arg-type]
        found = predictor.predict(window, seed=0, evidence=evidence)
        result[dtype] = compare_predictions(found, reference)
        again = predictor.predict(window, seed=0, evidence=evidence)
        result[dtype]["repeats"] = bool(torch.equal(found.disparity, again.disparity))  # type: ignore[arg-type]
        result[dtype]["time"] = bench.median_seconds(
            lambda p=predictor: p.predict(window, seed=0, evidence=evidence),  # type: ignore[misc]
            1 if bench.smallest else 5,
        )
    result["summary"] = ", ".join(
        f"{name} {part['time']['median']:.3f} s disparity rel {part['disparity']['rel_l2']:.1e}"
        for name, part in result.items()
        if "time" in part
    )


def reconstruct_on(bench: Bench, result: dict[str, Any], device: str, dtype: str) -> None:
    """The main job on the example clip; keeps the result for the comparison."""
    import geo4d

    frames = clip_frames(4 if bench.smallest else None)
    times = np.arange(len(frames)) / 16.0
    started = time.perf_counter()
    cpu = time.process_time()
    scene = geo4d.reconstruct(frames, device=device, dtype=dtype, times_s=times)
    bench.sync()
    result["seconds"] = round(time.perf_counter() - started, 3)
    result["cpu_seconds"] = round(time.process_time() - cpu, 3)
    result["stages"] = scene.diagnostics.get("seconds")
    result["score"] = _score(scene, len(frames))
    kept = {
        "depth": np.asarray(scene.depth[:], np.float32),
        "confidence": np.asarray(scene.confidence[:], np.float32),
        "c2w": scene.c2w,
    }
    results = bench.hold("scenes", dict)
    results[f"{device} {dtype}"] = kept
    result["against"] = {
        name: compare_scenes(kept, other) for name, other in results.items() if other is not kept
    }
    result["summary"] = f"{result['seconds']:.1f} s, abs_rel {result['score'].get('abs_rel')}, " + "; ".join(
        f"depth off {name} by {row['median']:.1e} (90 %: {row['p90']:.1e})"
        for name, row in result["against"].items()
    )


def _score(scene: Any, count: int) -> dict[str, Any]:
    try:
        from geo4d.evaluation.run import PROTOCOLS, load_ground_truth, score

        if count < 32:
            return {}
        found = score(scene, load_ground_truth(EXAMPLES / "clip_truth"), PROTOCOLS["median"]).to_json()
    except Exception as error:  # the job itself went well: what scores it is another matter
        return {"error": f"{type(error).__name__}: {error}"}
    return {name: found.get(name) for name in ("abs_rel", "delta_125", "coverage", "rpe_rot_deg", "ate")}


def compare_scenes(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Relative difference of depth where both are valid, after one factor, and of the path."""
    a, b = found["depth"], reference["depth"]
    both = np.isfinite(a) & np.isfinite(b) & (b > 0)
    ratio = a[both] / b[both]
    error = np.abs(ratio / np.median(ratio) - 1)
    row = {
        "median": float(np.median(error)),
        "p90": float(np.quantile(error, 0.9)),
        "factor": float(np.median(ratio)),
        "valid_differs": float((np.isfinite(a) != np.isfinite(b)).mean()),
        "confidence": float(np.abs(found["confidence"] - reference["confidence"]).mean()),
    }
    if found["c2w"] is not None and reference["c2w"] is not None:
        row["rotation"] = float(np.abs(found["c2w"][:, :3, :3] - reference["c2w"][:, :3, :3]).max())
    return row


def on_device(dtype: str) -> Any:
    def work(bench: Bench, result: dict[str, Any]) -> None:
        reconstruct_on(bench, result, str(bench.device), dtype)

    return work


def on_cpu(bench: Bench, result: dict[str, Any]) -> None:
    reconstruct_on(bench, result, "cpu", "float32")


STEPS = [
    Step("main", "tiny window", 8, tiny_window),
    Step("main", "reconstruct float32", 15, on_device("float32"), keeps=("scenes",)),
    Step("main", "reconstruct bfloat16", 12, on_device("bfloat16"), keeps=("scenes",)),
    Step("main", "reconstruct on the CPU", 14, on_cpu, keeps=("scenes",)),
]
