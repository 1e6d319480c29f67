"""Learning curve of training runs from their logs: a JSON record, and a table on the screen.

    python benchmarks/learning_curve.py RUN [RUN ...] [-o benchmarks/results/NAME.json]

RUN is a folder of ``geo4d train``. Steps and seconds add up over the runs in the order given.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SHOWN = (
    "abs_rel",
    "delta",
    "abs_rel_image_only",
    "delta_image_only",
    "rotation",
    "rotation_image_only",
    "ate",
)


def read_run(folder: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Evaluations of a run, and where it ended. Rows of an interrupted part that was repeated are left out."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept: list[dict[str, Any]] = []
    for row in rows:
        while kept and kept[-1]["step"] > row["step"]:
            kept.pop()
        kept.append(row)
    scores = []
    for row in kept:
        found = {name.removeprefix("eval/"): value for name, value in row.items() if name.startswith("eval/")}
        if found:
            scores.append({"step": row["step"], "cpu_minutes": round(row["cpu_seconds"] / 60, 2), **found})
    last = kept[-1]
    return scores, {
        "step": last["step"],
        "cpu_minutes": last["cpu_seconds"] / 60,
        "minutes": last["seconds"] / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    record = {}
    for run in options.runs:
        scores, end = read_run(run)
        record[run.name] = {"end": end, "scores": scores}
        print(f"\n{run.name}: {end['step']} steps, {end['cpu_minutes']:.1f} CPU minutes of the trainer")
        print("| step | cpu min | " + " | ".join(SHOWN) + " |")
        print("|" + " --- |" * (len(SHOWN) + 2))
        for row in scores:
            values = " | ".join(f"{row.get(name, float('nan')):.3f}" for name in SHOWN)
            print(f"| {row['step']} | {row['cpu_minutes']} | {values} |")
    if options.output is not None:
        options.output.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
