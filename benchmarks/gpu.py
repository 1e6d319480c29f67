"""Everything that is claimed of a CUDA device, measured in one go within a few minutes.

    python benchmarks/gpu.py --output DIR [--budget 230] [--only PART ...] [--smallest]

Parts, by value: the bundled model and its main job against the CPU; the recorded cases; Geo4D and GeometryCrafter at the
released size with weights made on the device; memory caps of 12 and 24 GiB; a training step of each family; types,
compilation and a profile. Every part has a JSON file of its own in DIR, written after each step: a step that fails
leaves its traceback, one that no longer fits into the budget a line, and a process that dies is followed by another
that goes on behind it. A short table ends the output. Without a CUDA device everything runs at the smallest size on the
CPU, which is what the tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]

ORDER = (
    "main/tiny window",
    "variants/ceilings",
    "geo4d/window bfloat16",
    "variants/profile",
    "geo4d/decode chunks",
    "goldens/float32",
    "main/reconstruct float32",
    "main/reconstruct bfloat16",
    "main/reconstruct on the CPU",
    "crafter/prior",
    "crafter/25 frames as published",
    "caps/geo4d gpu-12gb, 12 GiB",
    "caps/geo4d default, 24 GiB, four windows",
    "training/geo4d diffusion 16x256x320",
    "training/crafter unet 25x320x640",
    "crafter/110 frames, 16 bits",
    "goldens/bfloat16",
    "geo4d/rounding",
    "caps/crafter offloaded, 12 GiB",
    "geo4d/four windows bfloat16",
    "geo4d/window float16",
    "training/geo4d decoder 4x320x512",
    "training/crafter maps 4x320x640",
    "crafter/decoder types",
    "variants/prior in each type",
    "training/the loop, smallest",
    "caps/geo4d default, 12 GiB",
    "variants/compiled block",
    "caps/geo4d low-memory, 8 GiB",
    "crafter/prior, eight at once",
    "caps/crafter as published, 24 GiB",
    "crafter/110 frames as published",
)
"""Every step, the most valuable first; those that share networks stand together where that costs nothing."""

SMALLEST_BUDGET = 3000.0
GRACE = 3.0
"""Seconds between the end of the budget and the end of a process that does not stop by itself."""


def all_steps() -> list[Any]:
    """Every step in the order in which they run."""
    from benchmarks.on_gpu import caps, crafter, geo4d_window, goldens, main_job, training, variants

    named = {
        f"{step.part}/{step.name}": step
        for part in (main_job, goldens, geo4d_window, crafter, caps, training, variants)
        for step in part.STEPS
    }
    if set(ORDER) != set(named):
        raise ValueError(f"expected an order of all steps, differs in {sorted(set(ORDER) ^ set(named))}")
    return [named[name] for name in ORDER]


def chosen_steps(only: list[str] | None) -> list[Any]:
    return [
        step for step in all_steps() if not only or step.part in only or f"{step.part}/{step.name}" in only
    ]


def child(options: argparse.Namespace) -> int:
    """Run what has no final state yet; 3 asks for a fresh process."""
    import torch

    from benchmarks.on_gpu.steps import Bench, Records, run_steps, say

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # With a number: some functions of torch.cuda take no other device.
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device(options.device)
    bench = Bench(device, options.smallest)
    say(f"torch {torch.__version__} on {bench.device}, load {os.getloadavg()[0]:.1f}")
    going = run_steps(chosen_steps(options.only), bench, Records(options.output), options.deadline)
    return 0 if going else 3


def parent(options: argparse.Namespace) -> int:
    """Processes one after another until every step has a final state or the time is over."""
    deadline = time.time() + options.budget
    command = [
        sys.executable,
        __file__,
        "--child",
        "--output",
        str(options.output),
        "--deadline",
        str(deadline),
    ]
    command += ["--device", options.device] + (["--smallest"] if options.smallest else [])
    command += ["--only", *options.only] if options.only else []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    while time.time() < deadline:
        process = subprocess.Popen(command, env=environment)
        try:
            code = process.wait(timeout=max(deadline + GRACE - time.time(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        if code == 0:
            break
        stopped = mark_stopped(options.output, "the budget was over" if code is None else f"exit code {code}")
        print(f"process ended ({code}); stopped in: {', '.join(stopped) or 'no step'}", flush=True)
        if code != 3 and not stopped:
            break  # it cannot even start
    return print_table(options.output)


def mark_stopped(folder: Path, reason: str) -> list[str]:
    """Give steps that were running when their process ended a final state."""
    stopped = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for name, step in record["steps"].items():
            if step.get("state") == "running":
                step |= {"state": "crashed", "error": reason}
                stopped.append(f"{record['part']}/{name}")
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return stopped


def print_table(folder: Path) -> int:
    """One line a step; the exit code is the number of those that failed or crashed, at most 100."""
    bad = 0
    print("\nstep                                              state    seconds  result")
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for name, step in record["steps"].items():
            bad += step["state"] in ("failed", "crashed")
            shown = step.get("error") or step.get("reason") or brief(step.get("result", {}))
            title = f"{record['part']}: {name}"
            print(f"{title:<49} {step['state']:<8} {step.get('seconds', 0):7.1f}  {shown[:170]}")
    return min(bad, 100)


def brief(result: Any) -> str:
    """The figures of a result that a step named ``summary``, else its first numbers."""
    if isinstance(result, dict) and "summary" in result:
        return str(result["summary"])
    flat: list[str] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(f"{prefix}{key} ", part)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat.append(f"{prefix}{value:.4g}")

    walk("", result)
    return ", ".join(flat[:8])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=None, help="folder of the JSON files")
    parser.add_argument("--budget", type=float, default=230.0, help="seconds of wall time")
    parser.add_argument("--only", nargs="+", default=None, metavar="PART", help="parts, or PART/STEP")
    parser.add_argument(
        "--smallest", action="store_true", help="smallest size; always so without a CUDA device"
    )
    parser.add_argument(
        "--device", default=None, help="torch device; by default the accelerator if there is one"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.output is None:
        options.output = Path(tempfile.mkdtemp(prefix="gpu-"))
    if not options.child:
        options.output.mkdir(parents=True, exist_ok=True)
        if options.device is None:
            options.device = "cuda" if has_cuda() else "cpu"
        if options.device == "cpu":
            options.smallest, options.budget = True, max(options.budget, SMALLEST_BUDGET)
    return options


def has_cuda() -> bool:
    """Asked in a process of its own: this one stays small and never touches the device."""
    ask = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return child(options) if options.child else parent(options)


if __name__ == "__main__":
    sys.exit(main())
