"""Long videos: cost and memory of the alignment against the number of frames, and drift with and without wider windows.

    python benchmarks/alignment_long.py cost [--frames 48 96 ... 3000] [--json OUT]
    python benchmarks/alignment_long.py drift [--frames 1000] [--json OUT]

Window predictions are made from the truth of synthetic scenes when they are asked for, and never kept; the CPU seconds
of making them are subtracted.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from alignment import cpu_seconds, resident_mb  # noqa: E402
from alignment_scenarios import umeyama  # noqa: E402

from geo4d.fusion import AlignConfig, align, iter_dense  # noqa: E402
from geo4d.synthetic.predictions import TruthSource  # noqa: E402
from geo4d.synthetic.render import make_scene  # noqa: E402
from geo4d.synthetic.scene import SceneConfig  # noqa: E402
from geo4d.types import Prediction  # noqa: E402

LENGTH = 16


class MadeOnDemand(Sequence[Prediction]):
    """Predictions of the windows, made anew at each access; counts the CPU seconds that this takes."""

    def __init__(self, source: TruthSource, windows: list[list[int]], seed: int) -> None:
        self.source, self.windows, self.seed = source, windows, seed
        self.seconds = 0.0
        self.reads = 0

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self.windows):
            raise IndexError(index)
        start = cpu_seconds()
        prediction = self.source.predict(self.windows[index], index, seed=self.seed)
        self.seconds += cpu_seconds() - start
        self.reads += 1
        return prediction


def plain_windows(num_frames: int, stride: int) -> list[list[int]]:
    """Windows of consecutive frames; the last one ends at the last frame."""
    starts = list(range(0, num_frames - LENGTH + 1, stride))
    if starts[-1] != num_frames - LENGTH:
        starts.append(num_frames - LENGTH)
    return [list(range(s, s + LENGTH)) for s in starts]


def dilated_windows(num_frames: int, step: int, stride: int) -> list[list[int]]:
    """Windows that take every ``step``-th frame."""
    span = (LENGTH - 1) * step + 1
    return [list(range(s, s + span, step)) for s in range(0, num_frames - span + 1, stride)]


def loop_windows(
    c2w: torch.Tensor, *, spacing: int, min_gap: int, radius: float, max_turn_deg: float
) -> list[list[int]]:
    """Windows that show a place twice: eight frames from each of two visits with nearly the same view."""
    windows, taken = [], -spacing
    centres, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    for second in range(min_gap, len(c2w) - 8):
        if second - taken < spacing:
            continue
        distance = (centres[: second - min_gap + 1] - centres[second]).norm(dim=1)
        turn = torch.rad2deg(torch.acos((forward[: second - min_gap + 1] @ forward[second]).clamp(-1, 1)))
        distance[turn > max_turn_deg] = torch.inf
        first = int(distance.argmin())
        if float(distance[first]) < radius and first + 8 <= second:
            windows.append([*range(first, first + 8), *range(second, second + 8)])
            taken = second
    return windows


def trajectory_errors(estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """ATE as share of the path length, and drift of scale and direction between the two ends of the video."""
    scale, rotation, translation = umeyama(estimate[:, :3, 3], truth[:, :3, 3])
    moved = scale * estimate[:, :3, 3] @ rotation.T + translation
    length = float(np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum())
    ate = float(np.sqrt(((moved - truth[:, :3, 3]) ** 2).sum(1).mean()))
    part = max(16, len(truth) // 10)

    def local_scale(rows: slice) -> float:
        return umeyama(estimate[rows, :3, 3], truth[rows, :3, 3])[0]

    relative = estimate[0, :3, :3].T @ estimate[-1, :3, :3]
    true_relative = truth[0, :3, :3].T @ truth[-1, :3, :3]
    cosine = np.clip((np.trace(relative.T @ true_relative) - 1) / 2, -1, 1)
    return {
        "path_length": length,
        "ate": ate,
        "ate_percent_of_path": 100 * ate / length,
        "scale_drift_percent": 100 * (local_scale(slice(-part, None)) / local_scale(slice(0, part)) - 1),
        "rotation_drift_deg": float(np.degrees(np.arccos(cosine))),
    }


def run(
    num_frames: int,
    kind: str,
    camera: str,
    seed: int,
    extra: list[str],
    stride: int,
    size: tuple[int, int],
    dense: bool,
    num_samples: int | None = None,
) -> dict[str, Any]:
    """One video, in this process."""
    torch.set_num_threads(1)
    scene = make_scene(SceneConfig(seed=seed, kind=kind, camera=camera, num_frames=num_frames, fps=10.0))  # type: ignore[arg-type]
    source = TruthSource(scene, size, kept_frames=64)
    windows = plain_windows(num_frames, stride)
    if "dilated" in extra:
        windows += dilated_windows(num_frames, 2, 16) + dilated_windows(num_frames, 3, 24)
    if "keyframes" in extra:
        windows += dilated_windows(num_frames, 12, 90)
    if "loops" in extra:
        windows += loop_windows(source.c2w.double(), spacing=40, min_gap=120, radius=0.5, max_turn_deg=20)
    windows.sort(key=lambda frames: (sum(frames) / len(frames), frames))
    predictions = MadeOnDemand(source, windows, seed)
    predictions[0]  # compiles the ray caster
    predictions.seconds, predictions.reads = 0.0, 0
    before, start = resident_mb(), cpu_seconds()
    config = AlignConfig() if num_samples is None else AlignConfig(num_samples=num_samples)
    alignment = align(predictions, num_frames=num_frames, config=config)
    spent = cpu_seconds() - start - predictions.seconds
    record: dict[str, Any] = {
        "num_frames": num_frames,
        "num_windows": len(windows),
        "scene": f"{kind}/{camera}/{seed}",
        "extra_windows": extra,
        "size": list(size),
        "samples_per_frame": config.num_samples,
        "align_cpu_seconds": round(spent, 3),
        "reads_per_window": predictions.reads / len(windows),
    }
    if dense:
        made = predictions.seconds
        start = cpu_seconds()
        errors, weight = 0.0, 0
        for maps in iter_dense(alignment, predictions, with_moving=False):
            truth = source.frame(maps.frame_index)[0]
            known = torch.isfinite(truth) & torch.isfinite(maps.depth)
            ratio = maps.depth[known] / truth[known]
            errors += float((ratio / ratio.median() - 1).abs().sum())
            weight += int(known.sum())
        record["dense_cpu_seconds"] = round(cpu_seconds() - start - (predictions.seconds - made), 3)
        record["abs_rel_per_frame_scale"] = round(errors / max(weight, 1), 5)
    record["peak_rss_mb"] = round(resident_mb(peak=True) - before, 1)
    assert alignment.c2w is not None
    record.update(trajectory_errors(alignment.c2w.numpy(), source.c2w.double().numpy()))
    focal = alignment.intrinsics[0, 0, 0] / source.intrinsics[0, 0, 0].double()
    record["focal_percent"] = 100 * (float(focal) - 1)
    record["num_scenes"] = int(alignment.scene.max()) + 1
    return record


def slope(records: list[dict[str, Any]], key: str) -> float:
    """Exponent p of cost ~ frames^p, least squares over the upper half of the lengths."""
    rows = sorted(records, key=lambda r: r["num_frames"])[-max(2, (len(records) + 1) // 2) :]
    frames = np.log([r["num_frames"] for r in rows])
    return float(np.polyfit(frames, np.log([max(r[key], 1e-9) for r in rows]), 1)[0])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["cost", "drift", "one"])
    parser.add_argument("--frames", nargs="*", type=int, default=None)
    parser.add_argument("--kind", default="street")
    parser.add_argument("--camera", default="driving")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--size", nargs=2, type=int, default=[48, 80])
    parser.add_argument("--extra", nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=None, help="pixels per frame that the solver sees")
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    if options.what == "one":
        record = run(
            options.frames[0],
            options.kind,
            options.camera,
            options.seed,
            options.extra,
            options.stride,
            size,
            options.dense,
            options.samples,
        )
        print(json.dumps(record))
        return 0
    plans: list[list[str]] = []
    if options.what == "cost":
        for frames in options.frames or [48, 96, 192, 384, 768, 1500, 3000]:
            plans.append(
                ["--frames", str(frames), "--kind", options.kind, "--camera", options.camera, "--dense"]
            )
    else:
        frames = str((options.frames or [1000])[0])
        for kind, camera in (("street", "driving"), ("object_on_ground", "orbit")):
            for extra in (
                [],
                ["dilated"],
                ["keyframes"],
                ["dilated", "keyframes"],
                ["loops"],
                ["dilated", "keyframes", "loops"],
            ):
                plans.append(["--frames", frames, "--kind", kind, "--camera", camera, "--extra", *extra])
    records = []
    for plan in plans:
        command = [
            sys.executable,
            __file__,
            "one",
            *plan,
            "--seed",
            str(options.seed),
            "--stride",
            str(options.stride),
        ]
        done = subprocess.run(
            [*command, "--size", *map(str, size)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            return 1
        records.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(json.dumps(records[-1]), flush=True)
    result: dict[str, Any] = {"records": records}
    if options.what == "cost":
        result["exponent"] = {
            key: slope(records, key) for key in ("align_cpu_seconds", "dense_cpu_seconds", "peak_rss_mb")
        }
        print("cost ~ frames^p, p =", {k: round(v, 2) for k, v in result["exponent"].items()})
    if options.json is not None:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
