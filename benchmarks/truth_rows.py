"""The bundled model beside what must be beaten: four samples, the held-out set, and clips of a still camera.

    python benchmarks/truth_rows.py --root FOLDER_OF_SAMPLES [--samples-only] [--limit N] [--workers 2] [--label NAME]

Prints the tables and which conditions hold, and writes ``benchmarks/results/DATE-truth-rows[-NAME].json``. Finished
sequences are kept in ``--work`` (by label), so that an interrupted run goes on where it stopped; ``--fresh`` forgets
them. They are kept by settings, not by code: take another label, or ``--fresh``, after a change.

    python benchmarks/truth_rows.py --compare BEFORE.json AFTER.json

prints two such files beside each other.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geo4d import reconstruct
from geo4d.batch.settings import WorkerSettings
from geo4d.evaluation.metrics.consistency import unmoved_change
from geo4d.evaluation.run import evaluate
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.evaluation.tables import baseline_table, confidence_table, result_table

SAMPLES = (
    "tartanair-office-sample",
    "hololens-dvmvs-sample",
    "iclnuim-livingroom1-sample",
    "tum-fr1-rpy-sample",
)
RESULTS = Path(__file__).parent / "results"
KEPT = (
    "name", "abs_rel", "delta_125", "coverage", "ate", "rpe_rot_deg", "fx_rel", "fy_rel", "fy_fx_rel", "cx_rel", "cy_rel",
    "depth_over_cameras", "parallax_px", "flicker_static", "flicker_moving", "confidence_gap", "confidence_spearman",
    "kept", "kept_moving", "kept_abs_rel", "dropped_error", "abs_rel_with_evidence", "delta_125_with_evidence",
    "abs_rel_without_evidence", "delta_125_without_evidence", "whole_median", "baselines", "degenerate", "failed",
)  # fmt: skip
STILL_FRAMES = 24


def conditions(samples: dict[str, Any] | None, heldout: dict[str, Any] | None) -> list[tuple[str, bool, str]]:
    """What is asked of the whole beside its rows: (condition, whether it holds, the figures)."""
    found: list[tuple[str, bool, str]] = []

    def at_least(what: str, value: float | None, limit: float | None) -> None:
        if value is not None and limit is not None:
            found.append((what, value >= limit, f"{value:.3f} against {limit:.3f}"))

    def at_most(what: str, value: float | None, limit: float) -> None:
        if value is not None:
            found.append((what, value <= limit, f"{value:.3f} against {limit:.3f}"))

    for row in (samples or {"sequences": []})["sequences"]:
        name, whole, rows = row["name"].split("-")[0], row["whole_median"], row["baselines"]

        def less(value: float | None, by: float = 0.01) -> float | None:
            return None if value is None else value - by

        at_least(
            f"{name}: delta with evidence >= evidence - 0.01",
            whole["delta_125_with_evidence"],
            less(rows["evidence"]["delta_125"]),
        )
        without = whole["delta_125_without_evidence"]
        at_least(
            f"{name}: delta without evidence >= constant",
            without,
            rows["constant"]["delta_125_without_evidence"],
        )
        at_least(
            f"{name}: delta without evidence >= pictures - 0.01",
            without,
            less(rows["pictures"]["delta_125_without_evidence"]),
        )
        at_least(f"{name}: delta >= control - 0.01", whole["delta_125"], less(rows["control"]["delta_125"]))
        # The tum piece turns about its own centre: its path does not determine a scale.
        if row.get("depth_over_cameras") is not None and name != "tum":
            at_most(f"{name}: |depth / cameras - 1| <= 0.03", abs(row.get("depth_over_cameras") - 1), 0.03)
        at_least(f"{name}: Spearman >= 0.2", row.get("confidence_spearman"), 0.2)
        at_most(f"{name}: fy / fx off by <= 0.002", row.get("fy_fx_rel"), 0.002)
    if heldout is None:
        return found
    rows = heldout["sequences"]
    for kind, part in (
        ("with evidence, evidence", "_with_evidence"),
        ("without evidence, constant", "_without_evidence"),
        ("without evidence, pictures", "_without_evidence"),
        ("control", ""),
    ):
        name = kind.split(", ")[-1]
        pairs = [
            (row["name"], row["whole_median"]["delta_125" + part], row["baselines"][name]["delta_125" + part])
            for row in rows
        ]
        pairs = [(n, a, b) for n, a, b in pairs if a is not None and b is not None]
        if not pairs:
            continue
        gains = [a - b for _, a, b in pairs]
        worst = min(pairs, key=lambda pair: pair[1] - pair[2])
        at_least(f"held-out, {kind}: mean gain in delta >= 0 ({len(pairs)})", statistics.fmean(gains), 0.0)
        at_least(f"held-out, {kind}: worst ({worst[0]}) >= -0.05", min(gains), -0.05)
    scale = [abs(r.get("depth_over_cameras") - 1) for r in rows if r.get("depth_over_cameras") is not None]
    if scale:
        at_most(
            f"held-out: median |depth / cameras - 1| <= 0.01 ({len(scale)})", statistics.median(scale), 0.01
        )
    for name, limit in (("flicker_static", 0.005), ("flicker_moving", 0.03)):
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            at_most(f"held-out: {name}, median of sequences <= {limit}", statistics.median(values), limit)
    if heldout["confidence"] is not None:
        at_most("held-out: |claimed - true| per decile <= 0.1", heldout["confidence"]["gap"], 0.1)
        at_least("held-out: pooled Spearman >= 0.4", heldout["confidence"]["spearman"], 0.4)
        kept = [row.get("kept_abs_rel") for row in rows if row.get("kept_abs_rel") is not None]
        dropped = [row.get("dropped_error") for row in rows if row.get("dropped_error") is not None]
        if kept:
            at_most("held-out: AbsRel of kept / all <= 0.9, mean", statistics.fmean(kept), 0.9)
        if dropped:
            at_least(
                "held-out: median error of dropped / kept >= 1.5, median", statistics.median(dropped), 1.5
            )
    return found


def still_flicker(clip: Path, frames: int = STILL_FRAMES) -> float | None:
    """Median |change of log depth| a frame of the unmoved pixels of a clip whose camera stands still."""
    with tempfile.TemporaryDirectory() as folder:
        result = reconstruct(clip, Path(folder) / "out", stop=frames)
        assert result.rgb is not None
        changes = []
        for t in range(1, result.num_frames):
            depth = torch.from_numpy(np.asarray(result.depth[t - 1 : t + 1], np.float32))
            rgb = torch.from_numpy(np.asarray(result.rgb[t - 1 : t + 1], np.float32))
            changes.append(unmoved_change(depth, rgb).abs())
    together = torch.cat(changes)
    return float(together.median()) if together.numel() else None


def compact(result: dict[str, Any]) -> dict[str, Any]:
    """What a dated file keeps of a result."""
    dropped = ("sequences", "degenerate", "sources", "columns", "counts", "published")
    kept = {key: value for key, value in result.items() if key not in dropped}
    kept["sequences"] = [
        {key: _rounded(row[key]) for key in KEPT if row.get(key) is not None} for row in result["sequences"]
    ]
    return _rounded(kept)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def compare(before: Path, after: Path) -> None:
    """Two files beside each other: every sequence of the samples, the means of the held-out set, the conditions."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    shown = [
        name for name in KEPT if name not in ("name", "whole_median", "baselines", "degenerate", "failed")
    ]
    for part in ("samples", "heldout"):
        if part not in old or part not in new:
            continue
        rows = [("mean", old[part]["mean"], new[part]["mean"])]
        if part == "samples":
            others = {row["name"]: row for row in new[part]["sequences"]}
            rows += [
                (row["name"], row, others[row["name"]])
                for row in old[part]["sequences"]
                if row["name"] in others
            ]
        for name, a, b in rows:
            print(f"\n{part}, {name}")
            for metric in shown:
                if a.get(metric) is not None or b.get(metric) is not None:
                    print(f"  {metric:28s} {_text(a.get(metric)):>9s} -> {_text(b.get(metric)):>9s}")
    was = {what: (holds, figures) for what, holds, figures in old["conditions"]}
    print("\nconditions")
    for what, holds, figures in new["conditions"]:
        before_text = (
            "" if what not in was else f"   before: {'ok' if was[what][0] else 'SHORT'} {was[what][1]}"
        )
        print(f"  {'ok   ' if holds else 'SHORT'} {what}: {figures}{before_text}")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the samples; without it they are left out")
    parser.add_argument("--samples-only", action="store_true")
    parser.add_argument("--limit", type=int, help="only so many held-out sequences, spread over the set")
    parser.add_argument(
        "--still", type=Path, nargs="*", default=[], help="clips of a camera that stands still"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--label", default="", help="goes into the name of the file, such as before or after")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "geo4d-truth-rows")
    parser.add_argument("--fresh", action="store_true", help="forget finished sequences of this label")
    parser.add_argument("--output", type=Path, help="another file than the dated one")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    options = parser.parse_args()
    if options.compare:
        compare(*options.compare)
        return 0
    if options.samples_only and options.root is None:
        parser.error("expected --root with the folder of the samples beside --samples-only")
    work = options.work / (options.label or "default")
    if options.fresh:
        shutil.rmtree(work, ignore_errors=True)

    def show(stage: str, done: int, total: int) -> None:
        print(f"{stage} {done}/{total}", file=sys.stderr, flush=True)

    how = WorkerSettings(workers=options.workers)
    samples = heldout = None
    if options.root is not None:
        settings = EvaluationSettings(sequences=SAMPLES)
        samples = evaluate(
            "samples", options.root, settings, how=how, work=work / "samples", on_progress=show
        )
    if not options.samples_only:
        from geo4d.synthetic.heldout import NUM_SEQUENCES, heldout_name

        count = min(options.limit or NUM_SEQUENCES, NUM_SEQUENCES)
        numbers = np.linspace(0, NUM_SEQUENCES - 1, count).round().astype(int)
        settings = EvaluationSettings(sequences=tuple(heldout_name(int(n)) for n in numbers))
        heldout = evaluate("synthetic", None, settings, how=how, work=work / "synthetic", on_progress=show)
    still = {}
    for clip in options.still:
        still["/".join(clip.parts[-2:])] = still_flicker(clip)
    parts = [result for result in (samples, heldout) if result is not None]
    for result in parts:
        for table in (
            result_table(result, sequences=result is samples),
            baseline_table(result),
            confidence_table(result),
        ):
            if table is not None:
                print(table.render(), "\n")
    checks = conditions(samples, heldout)
    checks += [
        (f"{name}: unmoved pixels <= 0.005 a frame", value <= 0.005, f"{value:.4f}")
        for name, value in still.items()
        if value is not None
    ]
    for what, holds, figures in checks:
        print(f"{'ok   ' if holds else 'SHORT'} {what}: {figures}")
    print(f"{sum(holds for _, holds, _ in checks)} of {len(checks)} conditions hold")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    record: dict[str, Any] = {
        "command": "python benchmarks/truth_rows.py" + (f" --limit {options.limit}" if options.limit else ""),
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "still": still,
        "conditions": checks,
    }
    if samples is not None:
        record["samples"] = compact(samples)
    if heldout is not None:
        record["heldout"] = compact(heldout)
    label = f"-{options.label}" if options.label else ""
    target = options.output or RESULTS / f"{record['date']}-truth-rows{label}.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
