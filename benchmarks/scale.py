"""Many small clips: CPU, wall clock and memory of ``geo4d batch`` against single runs, and what kills cost.

    python benchmarks/scale.py [--clips 20] [--frames 4] [--model stub] [--kills 3] [--engines local ray] [--output FILE]

Clips of 160x96 pixels of a closed-form box world. ``stub`` is a predictor that knows its answer, so that what is measured
is all that surrounds a network; any other name is a model of the package. Rows:

- ``single``: a process of ``geo4d reconstruct`` for each of three clips, as a user starts it;
- ``sequential``: ``geo4d.reconstruct`` on all clips in one process, the model loaded once;
- ``local-1``, ``local-2``: ``geo4d batch`` with one worker, everything pinned to one core, and with two workers on all;
- ``local-2-kills``: with two workers, of which one is killed (SIGKILL) several times while it has a clip;
- ``ray-1``, ``ray-2``, ``ray-2-kills``: the same with ``--engine ray``, a Ray of the command's own.

CPU seconds are those of the whole tree of processes, imports and loading included, divided by clips; ``cpu_in_run_s`` is
the median of what a clip takes inside of a process that is already there. ``working_s`` is the wall clock from the first
clip's start to the last one's end. One numerical thread for each process. The load of the machine after a row is noted.
Processes of Ray are not waited for by the command, so their CPU seconds are read twice a second while they live.

``benchmarks/scale_long.py`` is one long video over several workers, ``benchmarks/scale_queue.py`` what these figures mean
for a thousand.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STUB = "benchmarks.stub_model:load"

SIZE = (96, 160)


def write_clips(folder: Path, count: int, frames: int) -> list[Path]:
    """Clips of different stretches of one path."""
    import numpy as np

    from geo4d.formats.movies import save_movie
    from tests.support.truth import BoxWorld

    world = BoxWorld(SIZE)
    paths = []
    for i in range(count):
        pictures = [(world.rgb(t + 7 * i).numpy() * 255).astype(np.uint8) for t in range(frames)]
        paths.append(folder / f"{i:03d}.mp4")
        save_movie(paths[-1], pictures, 24.0)
    return paths


def run_process(words: list[str], watch: Any = None, pinned: bool = False) -> dict[str, float]:
    """A process and all below it, on one core if ``pinned``: wall clock and CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "geo4d", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, {0})) if pinned else None,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    sampled: dict[int, float] = {}
    ended = threading.Event()
    sampler = threading.Thread(target=sample_cpu, args=(process.pid, sampled, ended))
    sampler.start()
    kills = watch(process) if watch else 0
    error = process.communicate()[1]
    ended.set()
    sampler.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}: {error}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if "ray" in words:
        cpu = sum(sampled.values())
    return {"wall_s": time.monotonic() - started, "cpu_s": cpu, "kills": kills}


def sample_cpu(process: int, sampled: dict[int, float], ended: threading.Event) -> None:
    """CPU seconds of a process and all below it, by process, as last seen (Linux)."""
    tick = os.sysconf("SC_CLK_TCK")
    while not ended.wait(0.5):
        for one in [process, *descendants(process)]:
            try:
                fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            sampled[one] = (int(fields[11]) + int(fields[12])) / tick


def run_sequential(paths: list[Path], output: Path, settings: dict[str, Any]) -> list[float]:
    """CPU seconds of each clip in this process, after the model was loaded."""
    from geo4d.batch.one import load, run_clip
    from geo4d.batch.task import Task

    loaded = load(settings)
    notes = [run_clip(loaded, Task(p.stem, str(p), str(output / p.stem)), lambda *s: None) for p in paths]
    assert not any(note["exit_code"] for note in notes), notes
    return [note["cpu_seconds"] for note in notes]


def run_batch(
    clips: Path, output: Path, common: list[str], workers: int, kills: int = 0, engine: str = "local"
) -> dict[str, Any]:
    """A batch, with workers killed while they have a clip."""
    from geo4d.batch.ledger import BATCH, LEDGER, Ledger

    ledger = output / BATCH / LEDGER

    def kill_some(process: subprocess.Popen[str]) -> int:
        done, killed = 0, 0
        while process.poll() is None and killed < kills:
            ended = len(list(ledger.glob("*.json"))) if ledger.is_dir() else 0
            if ended > done + 1:  # a worker is in the middle of the next clip, or just takes it
                workers_now = [pid for pid in descendants(process.pid) if is_worker(pid)]
                if workers_now:
                    os.kill(workers_now[killed % len(workers_now)], signal.SIGKILL)
                    done, killed = ended, killed + 1
            time.sleep(0.05)
        return killed

    words = ["batch", str(clips), "-o", str(output), "--workers", str(workers), "--table", "md", *common]
    words += ["--engine", engine]
    cost = run_process(words, kill_some if kills else None, pinned=workers == 1)
    records = sorted(Ledger(ledger).scan().values(), key=lambda record: record["ended"])
    states = [record["state"] for record in records]
    assert states == ["done"] * len(list(clips.iterdir())), states
    memory = [record["peak_memory_bytes"] / 2**20 for record in records]
    return {
        **cost,
        "cpu_s_per_clip": cost["cpu_s"] / len(records),
        "cpu_in_run_s": median(record["cpu_seconds"] for record in records),
        "working_s": records[-1]["ended"] - min(r["ended"] - r["seconds"] for r in records),
        "tries_repeated": sum(len(record["tries"]) for record in records),
        "peak_memory_mib": {"third clip": memory[min(2, len(memory) - 1)], "last clip": memory[-1]},
    }


def children(process: int) -> list[int]:
    """Processes that a process has started and not yet seen the end of (Linux)."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def descendants(process: int) -> list[int]:
    """All processes below one."""
    found = children(process)
    return found + [below for child in found for below in descendants(child)]


def is_worker(process: int) -> bool:
    """A spawned worker or an actor of ours, not what multiprocessing and Ray start for themselves."""
    try:
        line = Path(f"/proc/{process}/cmdline").read_bytes()
        return b"spawn_main" in line or b"ray::RayWorker" in line
    except OSError:
        return False


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rows."""
    rows: dict[str, Any] = {}
    model = STUB if options.model == "stub" else options.model
    common = ["--model", model, "--tries", "0"]
    settings = {"model": model, "tries": 0}

    def note(name: str, row: dict[str, Any]) -> None:
        rows[name] = {**row, "load_after": round(os.getloadavg()[0], 1)}
        print(name, json.dumps(rows[name]), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        paths = write_clips(folder / "clips", options.clips, options.frames)
        single = [
            run_process(["reconstruct", str(p), "-o", str(folder / "single" / p.stem), "--quiet", *common])
            for p in paths[:3]
        ]
        note("single", {k: median(run[k] for run in single) for k in ("wall_s", "cpu_s")})
        started, cpu = time.monotonic(), time.process_time()
        seconds = run_sequential(paths, folder / "sequential", settings)
        row = {"wall_s": time.monotonic() - started, "cpu_s": time.process_time() - cpu}
        note(
            "sequential",
            {**row, "cpu_s_per_clip": row["cpu_s"] / len(paths), "cpu_in_run_s": median(seconds)},
        )
        for engine in options.engines:
            for workers, kills in ((1, 0), (2, 0), (2, options.kills)):
                name = f"{engine}-{workers}{'-kills' if kills else ''}"
                note(name, run_batch(folder / "clips", folder / name, common, workers, kills, engine))
            one, two = rows[f"{engine}-1"], rows[f"{engine}-2"]
            ratios = {
                "wall_of_two_to_one_pinned": two["wall_s"] / one["wall_s"],
                "working_of_two_to_one_pinned": two["working_s"] / one["working_s"],
                "cpu_per_clip_to_single": two["cpu_s_per_clip"] / rows["single"]["cpu_s"],
                "cpu_per_clip_to_sequential": two["cpu_s_per_clip"] / rows["sequential"]["cpu_s_per_clip"],
            }
            note(f"{engine}-ratios", {name: round(value, 3) for name, value in ratios.items()})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--model", default="stub")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=("local", "ray"), default=["local"])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    load_before = os.getloadavg()
    rows = measure(options)
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": f"python benchmarks/scale.py --clips {options.clips} --frames {options.frames} "
        f"--model {options.model} --kills {options.kills} --engines {' '.join(options.engines)}",
        "machine": {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "load_before": [round(value, 1) for value in load_before],
        "rows": rows,
    }
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
