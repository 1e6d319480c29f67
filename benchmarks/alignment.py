"""The alignment against scenarios with known truth: loss, accuracy, CPU seconds, memory.

    python benchmarks/alignment.py --scenario FILE... [--mode published corrected] [--windows-from results.json]
        [--objective FILE...] [--json OUT]

Every scenario and mode runs in a process of its own. ``cpu_seconds`` (user + system) runs from arrays in memory to the
finished reconstruction, dense depth included; ``compile_seconds`` is what a first solve of a tiny problem takes beyond
a second one (libraries loading their kernels). ``--windows-from`` forces the window lists that a reference run
recorded; ``--objective`` evaluates recorded states and compares each term.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

# Small kernels: more threads only wait for each other. Set before the libraries load.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# The script runs from a checkout as well as with the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from alignment_scenarios import Scenario, ScenarioPredictions, load_scenario, score  # noqa: E402

from geo4d.fusion import AlignConfig, Alignment, align, dense_reconstruction  # noqa: E402
from geo4d.fusion.align import objective_on_all_pixels  # noqa: E402
from geo4d.fusion.all_pixels import evaluate_objective  # noqa: E402
from geo4d.fusion.pixel_terms import Optics  # noqa: E402
from geo4d.fusion.variables import Variables  # noqa: E402

MODES = {"published": AlignConfig.published, "corrected": AlignConfig.corrected}


def cpu_seconds() -> float:
    """User and system seconds of this process so far."""
    times = os.times()
    return times.user + times.system


def resident_mb(peak: bool = False) -> float:
    """Resident memory of this process, now or at its peak, MiB."""
    key = "VmHWM" if peak else "VmRSS"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"expected {key} in /proc/self/status, found none")


def forced_windows(scenario: Scenario, recorded: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The window lists of a recorded reference run, as settings."""
    if scenario.name not in recorded:
        raise ValueError(f"expected {scenario.name!r} among {', '.join(recorded)} in the recorded results")
    entry = recorded[scenario.name]
    return {
        "force_dropped_disparity": tuple(entry["dropped_disparity_windows"]),
        "force_kept_trajectory": tuple(entry["kept_trajectory_windows"]),
    }


def warm_up() -> float:
    """Seconds of CPU that a first solve takes beyond a second one."""
    from make_alignment_scenarios import Plan, make

    tiny = Scenario("tiny", make(Plan("tiny", 1, 18, 16, 24, 0.9, stride=1)))
    spent = []
    for _ in range(2):
        start = cpu_seconds()
        predictions = ScenarioPredictions(tiny)
        alignment = align(predictions, num_frames=tiny.num_frames)
        dense_reconstruction(alignment, predictions)
        spent.append(cpu_seconds() - start)
    return max(0.0, spent[0] - spent[1])


def run_one(path: str, mode: str, windows_from: str | None, threads: int) -> dict[str, Any]:
    """One scenario in one mode, in this process."""
    torch.set_num_threads(threads)
    before = resident_mb()
    scenario = load_scenario(path)
    config = replace(MODES[mode](), principal_point=scenario.principal_point)
    if windows_from is not None:
        config = replace(config, **forced_windows(scenario, json.loads(Path(windows_from).read_text())))
    compile_seconds = warm_up()
    wall, cpu = time.perf_counter(), cpu_seconds()
    predictions = ScenarioPredictions(scenario)
    alignment = align(predictions, num_frames=scenario.num_frames, config=config)
    result = dense_reconstruction(alignment, predictions, with_moving=False)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    peak = resident_mb(peak=True)
    depth = np.asarray(result.depth)
    loss = objective_on_all_pixels(alignment, predictions, lambda frame: torch.from_numpy(depth[frame]))
    assert result.c2w is not None
    assert result.reliable is not None
    c2w, focal = torch.from_numpy(result.c2w), torch.from_numpy(result.intrinsics[:, 0, 0])
    scores = score(scenario, c2w, focal, depth)
    seen = np.nonzero(result.reliable)[0]
    dropped = alignment.diagnostics["dropped"]
    record = {
        "scenario": scenario.name,
        "mode": mode,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "compile_seconds": round(compile_seconds, 3),
        "peak_rss_mb": round(max(0.0, peak - before), 1),
        "loss": {name: round(value, 7) for name, value in loss.to_dict().items()},
        **{name: round(value, 5) for name, value in scores.items()},
        "dropped_disparity_windows": sorted(d["window"] for d in dropped if d["what"] == "disparity"),
        "dropped_trajectory_windows": sorted(d["window"] for d in dropped if d["what"] == "trajectory"),
        "dropped_windows": sorted(d["window"] for d in dropped if d["what"] == "points"),
        "bad_window": int(scenario.arrays.get("bad_window", -1)),
        "unreliable_frames": int((~result.reliable).sum()),
    }
    if 0 < len(seen) < scenario.num_frames:
        record["abs_rel_reliable"] = round(score(scenario, c2w, focal, depth, seen)["abs_rel"], 5)
    if "true_dynamic" in scenario.arrays:
        record["dynamic_iou"] = round(dynamic_iou(scenario, alignment, predictions), 4)
    return record


def dynamic_iou(scenario: Scenario, alignment: Alignment, predictions: ScenarioPredictions) -> float:
    """Intersection over union of the moving pixels (probability above one half) with the truth, surfaces only."""
    estimate = dense_reconstruction(alignment, predictions).dynamic
    assert estimate is not None
    moving = np.asarray(estimate) > 0.5
    truth = scenario.arrays["true_dynamic"] & (scenario.arrays["true_depth"] > 0)
    return float((moving & truth).sum() / max(1, (moving | truth).sum()))


def evaluate_recorded_state(path: str, scenario_files: list[str]) -> dict[str, Any]:
    """Each published loss term at a recorded state, ours and recorded, with the relative difference.

    The scenario is found by its name in the state's file name, among ``--scenario`` and beside the state.
    """
    name = Path(path).stem.removeprefix("objective_")
    beside = Path(path).with_name(f"{name}.npz")
    found = [file for file in scenario_files if Path(file).stem == name] or [str(beside)]
    scenario = load_scenario(found[0])
    with np.load(path) as archive:
        state = {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}
    num_frames, num_windows = scenario.num_frames, len(scenario.window_start)
    variables = Variables(
        rotation=state["c2w"][:, :3, :3].double(),
        centre=state["c2w"][:, :3, 3].double(),
        log_focal=state["focal"].double().log().expand(num_frames),
        window_scale=state["window_scale"].double(),
        window_rotation=state["window_R"].double(),
        window_translation=state["window_t"].double(),
        disparity_scale=state["disparity_scale"].double(),
        disparity_shift=state["disparity_shift"].double(),
        trajectory_scale=state["trajectory_scale"].double(),
        trajectory_rotation=state["trajectory_R"].double(),
        trajectory_translation=state["trajectory_t"].double(),
        log_depth=torch.zeros(num_frames, 1),
    )
    config = AlignConfig.published()
    disparity_weight = torch.full((num_windows,), config.disparity_weight, dtype=torch.float64)
    disparity_weight[state["dropped_disparity_windows"].long()] = 0
    principal = torch.tensor(scenario.principal_point, dtype=torch.float64).expand(num_frames, 2)
    values = evaluate_objective(
        ScenarioPredictions(scenario),
        variables,
        lambda frame: state["depth"][frame],
        Optics(principal, torch.ones(num_frames, dtype=torch.float64)),
        disparity_weight=disparity_weight,
        trajectory_weight={int(g): config.trajectory_weight for g in state["kept_trajectory_windows"]},
        smoothness_weight=config.smoothness_weight,
        weight_limit=config.weight_limit,
        min_disparity=config.min_disparity,
        mask_sky=False,
    ).to_dict()
    terms = {}
    for term, value in values.items():
        recorded = float(state[f"loss_{term}"])
        difference = abs(value - recorded) / max(abs(recorded), 1e-12)
        terms[term] = {"ours": value, "recorded": recorded, "relative_difference": difference}
        print(
            f"{name} {term:11s} ours {value:.9f} recorded {recorded:.9f} relative difference {difference:.2e}"
        )
    return {"objective": name, "terms": terms}


def print_record(record: dict[str, Any]) -> None:
    """One line."""
    loss, speed = (
        record["loss"]["total"],
        f"cpu {record['cpu_seconds']:6.2f} s  rss {record['peak_rss_mb']:5.0f} MB",
    )
    poses = f"ate {record['ate']:.4f}  rpe {record['rpe_trans']:.4f} {record['rpe_rot_deg']:.3f} deg"
    depth = f"focal {record['focal_percent']:+.2f} %  abs_rel {record['abs_rel']:.4f}  delta {record['delta_125']:.4f}"
    dropped = f"dropped {record['dropped_windows']} disparity {record['dropped_disparity_windows']}"
    name = f"{record['scenario']:24s} {record['mode']:9s}"
    print(f"{name} {speed}  loss {loss:.5f}  {poses}  {depth}  {dropped}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", nargs="*", default=[], help="scenario files")
    parser.add_argument("--mode", nargs="*", choices=sorted(MODES), default=["published", "corrected"])
    parser.add_argument("--windows-from", default=None, help="recorded results whose window lists are forced")
    parser.add_argument("--objective", nargs="*", default=[], help="recorded states to evaluate")
    parser.add_argument("--json", default=None, help="where the list of results goes")
    parser.add_argument("--threads", type=int, default=1, help="threads of the tensor library")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        record = run_one(options.scenario[0], options.mode[0], options.windows_from, options.threads)
        print(json.dumps(record))
        return 0
    results: list[dict[str, Any]] = []
    for path in options.objective:
        results.append(evaluate_recorded_state(path, options.scenario))
    failed = 0
    for path in options.scenario:
        for mode in options.mode:
            command = [sys.executable, __file__, "--worker", "--scenario", path, "--mode", mode]
            command += ["--threads", str(options.threads)]
            if options.windows_from is not None:
                command += ["--windows-from", options.windows_from]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"{path} {mode} failed:\n{done.stderr}", file=sys.stderr)
                failed += 1
                continue
            record = json.loads(done.stdout.strip().splitlines()[-1])
            results.append(record)
            print_record(record)
    if options.json is not None:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
