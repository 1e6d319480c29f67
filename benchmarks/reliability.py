"""The reliability tests R1 to R24: hostile and damaged input, memory, kills, full disks, unsafe files, exports, installs.

    python benchmarks/reliability.py                      # everything in full size: about two hours on two cores
    python benchmarks/reliability.py --quick              # what fits into continuous integration: a few minutes
    python benchmarks/reliability.py --only R7 R9         # some of them

Prints a table with pass or fail, figures and minutes, and writes it to ``benchmarks/results/DATE-reliability.json`` and
``.md`` (with ``--output`` elsewhere; a quick run or a part writes only where it is told to). R20 and R21, inputs by
address and uploads, do not exist in this package.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from datetime import date
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.faults import files, inputs, runs  # noqa: E402, F401  (they enter their tests)
from benchmarks.faults.harness import FULL, QUICK, TESTS, Outcome, Size, prepare  # noqa: E402

WORDS = {True: "pass", False: "FAIL", None: "none"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=sorted(TESTS, key=number), metavar="R", help="names of tests"
    )
    parser.add_argument("--quick", action="store_true", help="few seeds, kills and frames")
    parser.add_argument(
        "--output", type=Path, help="path without suffix for the table (.md) and its values (.json)"
    )
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    names = sorted(options.only or TESTS, key=number)
    prepare()
    rows = []
    for name in names:
        row = run(name, size)
        rows.append(row)
        print(line(row), flush=True)
        for note in row["notes"][:20]:
            print(f"      {note}", flush=True)
    output = options.output
    if output is None and not options.quick and not options.only:
        output = Path(__file__).parent / "results" / f"{date.today().isoformat()}-reliability"
    if output is not None:
        save(output, rows, options)
    failed = [row["test"] for row in rows if row["passed"] is False]
    print(
        f"{len(rows) - len(failed)} of {len(rows)} without a fault"
        + (f"; FAILED: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def number(name: str) -> int:
    return int(name[1:])


def run(name: str, size: Size) -> dict[str, Any]:
    """One test in a folder of its own, as a row of the table."""
    test, started = TESTS[name], time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"geo4d-{name}-", ignore_cleanup_errors=True) as folder:
        try:
            outcome = test.run(Path(folder).resolve(), size)
        except Exception as error:
            traceback.print_exc()
            outcome = Outcome(False, f"the test itself failed: {type(error).__name__}: {error}")
    return {
        "test": name,
        "about": test.about,
        "bar": test.bar,
        "passed": outcome.passed,
        "figure": outcome.figure,
        "notes": outcome.notes,
        "minutes": round((time.monotonic() - started) / 60, 2),
    }


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['test']:<4} {WORDS[row['passed']]}  {row['minutes']:6.2f} min  {row['about']}: {row['figure']}"
    )


def save(output: Path, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    from geo4d.provenance import machine, versions

    command = "python benchmarks/reliability.py" + (" --quick" if options.quick else "")
    if options.only:
        command += f" --only {' '.join(options.only)}"
    values = {
        "date": date.today().isoformat(),
        "command": command,
        "rows": rows,
        "machine": machine(),
        "versions": versions(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    table = [
        f"# Reliability, {values['date']}",
        "",
        f"`{command}`",
        "",
        "| test | result | bar | figure | minutes |",
    ]
    table.append("|---|---|---|---|---|")
    for row in rows:
        cells = (
            f"{row['test']} {row['about']}",
            WORDS[row["passed"]],
            row["bar"],
            row["figure"],
            f"{row['minutes']:.1f}",
        )
        table.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    table += ["", *(f"- {row['test']}: {note}" for row in rows for note in row["notes"])]
    output.with_suffix(".md").write_text("\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
