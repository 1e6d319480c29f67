"""Reconstruct every clip and every ground-truth sequence of a folder, each in a process of its own: one table.

    python benchmarks/clips.py --clips DIR --sequences DIR --output DIR --json OUT --table OUT

``--clips`` is searched for video files and folders of frames; ``--sequences`` for folders that hold ground truth in a
known layout beside a folder of frames.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
FRAME_FOLDERS = ("images", "image", "rgb", "image_left")
SCORES = ("abs_rel", "delta_125", "coverage", "ate", "rpe_trans", "rpe_rot_deg")


def find_clips(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and place of each video file and each folder of pictures."""
    from geo4d.video.pictures import IMAGE_SUFFIXES

    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEO_SUFFIXES or (
            path.is_dir() and any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir())
        ):
            yield str(path.relative_to(folder)), path


def find_sequences(folder: Path, names: list[str]) -> Iterator[tuple[str, Path, Path]]:
    """Name, frames and ground truth of the named sequences."""
    for name in names:
        frames = next(path for sub in FRAME_FOLDERS if (path := folder / name / sub).is_dir())
        yield name, frames, folder / name


def run(name: str, frames: Path, truth: Path | None, output: Path, extra: list[str]) -> dict:
    """One run of the command line, and what it left behind."""
    target = output / name.replace("/", "_")
    scores = target.with_name(target.name + "_scores.json")
    command = [
        sys.executable,
        "-m",
        "geo4d",
        "reconstruct",
        str(frames),
        "-o",
        str(target),
        "--overwrite",
        "--quiet",
    ]
    if truth is not None:
        command += ["--ground-truth", str(truth), "--json", str(scores)]
    started = time.perf_counter()
    done = subprocess.run([*command, *extra], check=False, capture_output=True, text=True)
    row: dict = {"name": name, "exit_code": done.returncode, "wall_seconds": time.perf_counter() - started}
    if done.returncode != 0:
        return {**row, "error": done.stderr.strip().splitlines()[-1]}
    manifest = json.loads((target / "manifest.json").read_text())
    diagnostics = json.loads((target / "diagnostics.json").read_text())
    row |= {
        "frames": manifest["num_frames"],
        "size": [manifest["size"]["width"], manifest["size"]["height"]],
        "cpu_seconds": sum(diagnostics["cpu_seconds"].values()),
        "stages_cpu_seconds": diagnostics["cpu_seconds"],
        "peak_bytes": diagnostics["peak_memory_bytes"],
        "scenes": len(manifest["provenance"]["source"]["scenes"]),
        "windows": len(diagnostics["windows"]),
        "unreliable_frames": diagnostics.get("num_unreliable_frames"),
        "result_bytes": sum(p.stat().st_size for p in target.rglob("*") if p.is_file()),
        "weights_sha256": manifest["provenance"]["model"]["weights_sha256"],
    }
    if truth is not None:
        row["scores"] = json.loads(scores.read_text())
    return row


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| clip | frames | maps | CPU s | wall s | peak MiB | MiB on disk | shots | unreliable | "
        "AbsRel | delta<1.25 | ATE | RPE t | RPE r (deg) |",
        "|" + " --- |" * 14,
    ]
    for row in rows:
        if row["exit_code"]:
            lines.append(f"| {row['name']} | {row['error']} |" + " |" * 12)
            continue
        found = row.get("scores", {})
        cells = [
            row["name"],
            row["frames"],
            "x".join(str(side) for side in row["size"]),
            f"{row['cpu_seconds']:.1f}",
            f"{row['wall_seconds']:.1f}",
            f"{row['peak_bytes'] / 2**20:.0f}",
            f"{row['result_bytes'] / 2**20:.1f}",
            row["scenes"],
            row["unreliable_frames"],
            *("" if found.get(key) is None else f"{found[key]:.4f}" for key in SCORES if key != "coverage"),
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--sequences", type=Path)
    parser.add_argument(
        "--names", nargs="+", default=None, help="sequence folders; default those with poses and depth"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("extra", nargs="*", help="further options of geo4d reconstruct, after --")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    names = options.names or [
        "tartanair-office-sample",
        "hololens-dvmvs-sample",
        "tum-fr1-rpy-sample",
        "iclnuim-livingroom1-sample",
    ]
    jobs: list[tuple[str, Path, Path | None]] = []
    if options.clips is not None:
        jobs += [(name, path, None) for name, path in find_clips(options.clips)]
    if options.sequences is not None:
        jobs += list(find_sequences(options.sequences, names))
    rows = []
    for name, frames, truth in jobs:
        row = run(name, frames, truth, options.output, options.extra)
        print(json.dumps({key: value for key, value in row.items() if key != "scores"}), flush=True)
        rows.append(row)
    text = table(rows)
    print(text)
    if options.json is not None:
        from geo4d.results.provenance import machine, versions

        head = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
        options.json.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")
    if options.table is not None:
        options.table.write_text(text)
    return 0 if all(row["exit_code"] == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
