"""The reliability tests R1 to R24: hostile and damaged input, memory, kills, full disks, unsafe files, exports, installs.

    python benchmarks/reliability.py                      # everything in full size: about two hours on two cores
    python benchmarks/reliability.py --quick              # what fits into continuous integration: a few minutes
    python benchmarks/reliability.py --only R7 R9         # some of them
    python benchmarks/reliability.py --resume             # what an earlier run that was cut off has not got

Prints a table with pass or fail, figures and minutes, and writes it to ``benchmarks/results/DATE-reliability.json`` and
``.md`` (with ``--output`` elsewhere; a quick run or a part writes only where it is told to). The table is
written anew when a test ends; with ``--resume`` the tests that it holds are not run again unless they failed or are
named. R20 and R21, inputs by address and uploads, do not exist in this package.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.faults import exports, files, inputs, runs  # noqa: E402, F401  (they enter their tests)
from benchmarks.faults.harness import FULL, QUICK, TESTS, Outcome, Size, forked, prepare  # noqa: E402

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
    parser.add_argument("--resume", action="store_true", help="go on with the table that is there")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    output = options.output
    if output is None and not options.quick and (options.resume or not options.only):
        output = Path(__file__).parent / "results" / f"{date.today().isoformat()}-reliability"
    if options.resume and output is None:
        parser.error("--resume goes on with a table: say which with --output")
    rows = earlier(output.with_suffix(".json"), options.quick) if options.resume else {}
    names = options.only or [name for name in TESTS if name not in rows or rows[name]["passed"] is False]
    prepare()
    for name in sorted(names, key=number):
        rows[name] = run(name, size)
        print(line(rows[name]), flush=True)
        for note in rows[name]["notes"][:20]:
            print(f"      {note}", flush=True)
        if output is not None:
            save(output, [rows[name] for name in sorted(rows, key=number)], options.quick)
    failed = [name for name, row in rows.items() if row["passed"] is False]
    print(
        f"{len(rows) - len(failed)} of {len(rows)} without a fault"
        + (f"; FAILED: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def earlier(table: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """The rows of an unfinished table by test; none where there is no table yet.

    Raises:
        SystemExit: the table has the other size.
    """
    if not table.exists():
        return {}
    values = json.loads(table.read_text(encoding="utf-8"))
    if values["quick"] is not quick:
        raise SystemExit(
            f"{table} holds a {'quick' if values['quick'] else 'full'} run; name another --output"
        )
    return {row["test"]: row for row in values["rows"]}


def number(name: str) -> int:
    return int(name[1:])


def run(name: str, size: Size) -> dict[str, Any]:
    """One test in a folder of its own, as a row of the table."""
    test, started = TESTS[name], time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"geo4d-{name}-", ignore_cleanup_errors=True) as folder:
        found = Path(folder).resolve() / "outcome.json"

        def measure() -> int:
            place = Path(folder).resolve() / "files"
            place.mkdir()
            try:
                outcome = test.run(place, size)
            except Exception as error:
                traceback.print_exc()
                outcome = Outcome(False, f"the test itself failed: {type(error).__name__}: {error}")
            found.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
            return 0

        # In a fork, so that threads and limits of one test do not disturb the next.
        ended = forked(measure, timeout=24 * 3600)
        print(ended.err, end="", file=sys.stderr)
        if found.exists():
            outcome = Outcome(**json.loads(found.read_text(encoding="utf-8")))
        else:
            outcome = Outcome(False, f"the test itself ended early: {ended.last}")
    return {
        "test": name,
        "about": test.about,
        "bar": test.bar,
        "passed": outcome.passed,
        "figure": outcome.figure,
        "notes": outcome.notes,
        "minutes": round((time.monotonic() - started) / 60, 2),
        "commit": commit(),
    }


def commit() -> str:
    """Of the code that ran; a plus sign says that files were changed since."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['test']:<4} {WORDS[row['passed']]}  {row['minutes']:6.2f} min  {row['about']}: {row['figure']}"
    )


def save(output: Path, rows: list[dict[str, Any]], quick: bool) -> None:
    from geo4d.results.provenance import machine, versions

    command = "python benchmarks/reliability.py" + (" --quick" if quick else "")
    minutes = sum(row["minutes"] for row in rows)
    values = {
        "date": date.today().isoformat(),
        "command": command,
        "quick": quick,
        "minutes": round(minutes, 1),
        "rows": rows,
        "machine": machine(),
        "versions": versions(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    table = [
        f"# Reliability, {values['date']}",
        "",
        f"`{command}`, {minutes:.0f} minutes; each row with the commit that it was measured at.",
        "",
        "| test | result | bar | figure | minutes | commit |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            f"{row['test']} {row['about']}",
            WORDS[row["passed"]],
            row["bar"],
            row["figure"],
            f"{row['minutes']:.1f}",
            row["commit"],
        )
        table.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    missing = [name for name in sorted(TESTS, key=number) if name not in {row["test"] for row in rows}]
    if missing:
        table += ["", f"Not run yet: {', '.join(missing)}; go on with `--resume`."]
    table += ["", *(f"- {row['test']}: {note}" for row in rows for note in row["notes"])]
    output.with_suffix(".md").write_text("\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
