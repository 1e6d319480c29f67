"""The tutorials as a newcomer runs them: every command of their shell blocks, one after the other, with its seconds.

    git clone -q . NEW && python3 -m venv NEW/.venv && NEW/.venv/bin/pip install -q NEW
    python benchmarks/newcomers.py NEW                  # all tutorials, or those that are named after it

Commands that need what no checkout has (a trainer, a drive's bag) are left out. One that fails ends its tutorial.
What is not tracked in the clone, but for its .venv, is removed before each tutorial.
"""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

NOT_HERE = ("not run here", "drive.", "MH_01")
"""Marks of commands that need more than the checkout."""


def commands(page: Path) -> list[str]:
    """The lines of its shell blocks, with their comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def cpu_seconds() -> float:
    """What all children that ended have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print a table for each tutorial."""
    checkout = Path(sys.argv[1]).resolve()
    names = sys.argv[2:] or ["film", "robotics", "splatting", "research"]
    environment = {**os.environ, "PATH": f"{checkout / '.venv/bin'}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    failed = False
    for name in names:
        lines = commands(checkout / "docs" / "tutorials" / f"{name}.md")
        subprocess.run(["git", "clean", "-qfdx", "-e", ".venv"], cwd=checkout, check=True)
        print(f"\n## {name}\n\n| command | seconds | of a CPU |\n| --- | --- | --- |", flush=True)
        total = 0.0
        for line in lines:
            command = line.partition("  #")[0].strip()
            if any(mark in line for mark in NOT_HERE):
                print(f"| `{command}` | not run | |", flush=True)
                continue
            before, used = time.perf_counter(), cpu_seconds()
            done = subprocess.run(
                command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True
            )
            seconds = time.perf_counter() - before
            total += seconds
            ended = "" if done.returncode == 0 else f", exit code {done.returncode}"
            print(f"| `{command}` | {seconds:.1f}{ended} | {cpu_seconds() - used:.1f} |", flush=True)
            if done.returncode:
                print(done.stderr[-2000:], file=sys.stderr)
                failed = True
                break
        print(f"| together | {total:.0f} | |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
