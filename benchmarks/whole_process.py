"""Wall clock and CPU seconds of ``geo4d reconstruct`` as a user starts it: a new process, imports included.

    python benchmarks/whole_process.py CLIP [CLIP ...] [--frames 16 100] [--repeat 2] [--output FILE]

CLIP is anything ``geo4d reconstruct`` reads. Run it on an idle machine: the wall clock is what counts here.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def run_once(clip: Path, frames: int) -> dict[str, float]:
    """One process; seconds of wall clock, user and system time together, and seconds of every stage."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result"
        command = [
            sys.executable,
            "-m",
            "geo4d",
            "reconstruct",
            str(clip),
            "-o",
            str(output),
            "--stop",
            str(frames),
        ]
        started = time.monotonic()
        done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
        wall = time.monotonic() - started
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
        found = list(output.rglob("diagnostics.json"))
        stages = json.loads(found[0].read_text())["seconds"] if found else {}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        **{f"stage {k}": round(v, 2) for k, v in stages.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, nargs="*", default=[16, 100])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result = {
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
        "runs": {
            clip.name: {
                f"{frames} frames": [run_once(clip, frames) for _ in range(options.repeat)]
                for frames in options.frames
            }
            for clip in options.clips
        },
    }
    print(json.dumps(result, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
