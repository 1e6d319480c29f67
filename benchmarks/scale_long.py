"""One long video over several workers: seconds of each stage, memory, bytes, and that the result has the same bits.

    python benchmarks/scale_long.py [--frames 10000] [--busy 0.05] [--rows 1 2 ray-2] [--output FILE]

A film of 160x96 pixels of a closed-form box world, with the predictor of ``benchmarks/stub_model.py``, which knows
its answer and computes ``--busy`` seconds of CPU per window of 8 frames on top. Rows are numbers of workers: ``1`` is one
process without workers. One numerical thread for each process.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.scale import SIZE, STUB, descendants, run_process  # noqa: E402
from tests.support.truth import BoxWorld  # noqa: E402


def write_film(path: Path, frames: int) -> None:
    """A film of so many frames."""
    from geo4d.formats.movies import save_movie

    world = BoxWorld(SIZE)
    save_movie(path, ((world.rgb(t).numpy() * 255).astype(np.uint8) for t in range(frames)), 24.0)


def run(film: Path, output: Path, row: str, busy: float) -> dict[str, Any]:
    """A row: what the run says of itself, and the largest memory of its workers."""
    engine, _, workers = row.rpartition("-")
    words = ["reconstruct", str(film), "-o", str(output), "--model", STUB, "--model-option", f"busy={busy}"]
    words += ["--tries", "0", "--output-size", "model", "--quiet", "--keep-windows"]
    if row != "1":
        words += ["--workers", workers, "--engine", engine or "local"]
    largest: dict[int, int] = {}

    def watch(process: Any) -> int:
        while process.poll() is None:
            for one in descendants(process.pid):
                largest[one] = max(largest.get(one, 0), resident(one))
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                continue
        return 0

    cost = run_process(words, watch)
    told = json.loads((output / "diagnostics.json").read_text())
    sums = [line for line in (output / "SHA256SUMS").read_text().splitlines() if "diagnostics" not in line]
    windows = [path.stat().st_size for path in (output / "windows").glob("window_*")]
    stored = sum(path.stat().st_size for path in (output / "arrays.zarr").rglob("*") if path.is_file())
    return {
        "wall_s": cost["wall_s"],
        "cpu_s": cost["cpu_s"],
        "seconds": told["seconds"],
        "cpu_seconds_of_the_command": told["cpu_seconds"],
        "memory_of_the_command_mib": told["peak_memory_bytes"] / 2**20,
        "memory_of_the_largest_worker_mib": max(largest.values(), default=0) / 2**20,
        "windows": len(windows),
        "bytes_per_window": sum(windows) / len(windows),
        "bytes_of_the_result": stored,
        "sha256_of_sums": hashlib.sha256("\n".join(sorted(sums)).encode()).hexdigest(),
    }


def resident(process: int) -> int:
    """Bytes in memory, without what is shared with others (Linux)."""
    try:
        fields = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--busy", type=float, default=0.05)
    parser.add_argument("--rows", nargs="+", default=["1", "2", "ray-2"])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        film = Path(name) / "film.mp4"
        write_film(film, options.frames)
        for row in options.rows:
            rows[row] = run(film, Path(name) / row, row, options.busy)
            rows[row]["load_after"] = round(os.getloadavg()[0], 1)
            print(row, json.dumps(rows[row]), flush=True)
    assert len({row["sha256_of_sums"] for row in rows.values()}) == 1, "the results differ"
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": f"python benchmarks/scale_long.py --frames {options.frames} --busy {options.busy} "
        f"--rows {' '.join(options.rows)}",
        "machine": {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "load_before": [round(value, 1) for value in load_before],
        "rows": rows,
    }
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
