"""Speed and accuracy of this checkout against another commit, in one run on the same clips: A B A B.

    python benchmarks/speed.py --against COMMIT [--frames 16 100] [--repeat 3] [--label NAME]
    python benchmarks/speed.py --against COMMIT --only fusion
    python benchmarks/speed.py --against COMMIT --frames 2000 --repeat 1

Whole processes are what a user starts (``geo4d reconstruct``, default settings, imports included): seconds to the first
line on the terminal, wall clock, CPU seconds, each stage, and the same without the network's own time. CPU seconds are
user and system time; on a machine that others use, too, they are the yardstick, and they are larger the busier the other
cores are. The network's own CPU seconds come from one further run with one numerical thread. The clip is drawn with exact
truth (a walk through a room, 1024x576), so that every row of speed has a row of accuracy beside it; of clips given by
``--clip`` only the difference of the two results is known. More frames than were drawn are shown back and forth.

Fusion alone is ``benchmarks/alignment.py`` of either checkout on the same drawn windows (its CPU seconds count from
arrays in memory to the reconstruction; AbsRel, delta and ATE stand beside them).

Results: ``benchmarks/results/DATE-speed[-LABEL].json``, and tables on the terminal. The other commit is unpacked into a
temporary folder and run with ``--python`` (default: this interpreter; an older commit may need an environment of its
own); a copy of this checkout's files is run beside it, so that a run does not notice when they change.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]

import torch  # noqa: E402

from geo4d.evaluation.metrics.poses import pose_scores  # noqa: E402
from geo4d.formats.movies import save_movie  # noqa: E402
from geo4d.run.reconstruct import load  # noqa: E402
from geo4d.synthetic.render import iter_frames, make_scene  # noqa: E402
from geo4d.synthetic.scene import SceneConfig  # noqa: E402

DRAWN = 100
"""Frames of the drawn clip; longer ones go over them back and forth."""

FUSION = {"24x64x96": (24, 64, 96), "48x96x160": (48, 96, 160), "24x256x512": (24, 256, 512)}
"""Name -> frames, height, width of the windows that are fused."""

PIXELS = 4
"""Every so many pixels along each axis are scored."""


@dataclass(frozen=True)
class Tree:
    """One side of the comparison.

    Attributes:
        name: "before" or "after".
        folder: of the checkout.
        python: interpreter that runs it.
        commit: what it is.
    """

    name: str
    folder: Path
    python: str
    commit: str


def git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(HERE.parent), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def unpack(commit: str, folder: Path) -> None:
    """The files of a commit, without touching the checkout or its worktrees."""
    folder.mkdir()
    with subprocess.Popen(
        ["git", "-C", str(HERE.parent), "archive", commit], stdout=subprocess.PIPE
    ) as archive:
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=True)
    if archive.returncode != 0:
        raise RuntimeError(f"git archive {commit} failed")


def copy_checkout(folder: Path) -> None:
    """The files of this checkout as they are now."""
    for name in git("ls-files", "-co", "--exclude-standard", "-z").split("\0"):
        source = HERE.parent / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)


def draw(folder: Path, num_frames: int, size: tuple[int, int]) -> Path:
    """A clip and its truth: ``clip.mp4``, and ``truth.npz`` with depth of every ``PIXELS``-th pixel and the cameras."""
    scene = make_scene(SceneConfig(seed=2001, kind="room", camera="orbit", num_frames=min(num_frames, DRAWN),
                                   fps=24.0, aspect=size[0] / size[1]))  # fmt: skip
    pictures, depth, c2w = [], [], []
    for frame in iter_frames(scene, size):
        pictures.append(frame.rgb.numpy())
        depth.append(frame.depth.numpy()[PIXELS // 2 :: PIXELS, PIXELS // 2 :: PIXELS])
        c2w.append(frame.c2w.numpy())
    order = back_and_forth(len(pictures), num_frames)
    save_movie(folder / "clip.mp4", (pictures[t] for t in order), 24.0)
    np.savez(folder / "truth.npz", depth=np.stack(depth), c2w=np.stack(c2w), order=order)
    return folder / "clip.mp4"


def back_and_forth(count: int, wanted: int) -> np.ndarray:
    """0 .. count - 1 .. 0 .. as often as wanted; every turn shows its frame once."""
    period = max(2 * count - 2, 1)
    at = np.arange(wanted) % period
    return np.where(at < count, at, period - at)


def run_once(
    tree: Tree, clip: Path, frames: int, output: Path, *, threads: int | None = None
) -> dict[str, Any]:
    """One process; its result stays in ``output``."""
    record = output.with_suffix(".json")
    command = [tree.python, str(HERE / "speed_child.py"), str(record), "reconstruct", str(clip)]
    environment = {**os.environ, "PYTHONPATH": str(tree.folder)}
    environment.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    load_before, started = os.getloadavg()[0], time.monotonic()
    process = subprocess.Popen(
        [*command, "-o", str(output), "--stop", str(frames)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=output.parent,
    )  # fmt: skip
    lines: list[tuple[float, str]] = []

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - started, line))

    listener = threading.Thread(target=listen)
    listener.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    listener.join()
    if (
        process.returncode not in (0, 9) or not (output / "diagnostics.json").is_file()
    ):  # 9: a doubtful result is one
        raise RuntimeError(
            f"{' '.join(command)} ended with {process.returncode}: {''.join(t for _, t in lines)[-3000:]}"
        )
    network = json.loads(record.read_text("utf-8"))
    told = json.loads((output / "diagnostics.json").read_text("utf-8"))
    return {
        "load": round(load_before, 2),
        "first_line_s": round(lines[0][0], 3) if lines else None,
        "first_line": lines[0][1].strip() if lines else None,
        "wall_s": round(wall, 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "network_wall_s": round(network["network_wall_s"], 3),
        "network_thread_s": round(network["network_thread_s"], 3),
        "peak_mb": network["peak_mb"],
        "stages_s": {name: round(value, 3) for name, value in told["seconds"].items()},
        "stages_cpu_s": {name: round(value, 3) for name, value in told.get("cpu_seconds", {}).items()},
    }  # fmt: skip


def accuracy(result: Path, truth: Path) -> dict[str, float]:
    """Depth against truth after one factor (median of ratios), cameras after a similarity."""
    found = load(result)
    with np.load(truth) as archive:
        known = {name: archive[name] for name in archive.files}
    order = known["order"][: found.num_frames]
    rows, columns = sampled(found.size, known["depth"].shape[1:])
    errors, ratios = [], []
    for t, source in enumerate(order):
        depth, reference = np.asarray(found.depth[t])[rows, columns], known["depth"][source]
        good = np.isfinite(depth) & np.isfinite(reference) & (depth > 0) & (reference > 0)
        ratios.append(reference[good] / depth[good])
    factor = float(np.median(np.concatenate(ratios)))
    for ratio in ratios:
        errors.append(
            np.stack([np.abs(factor / ratio - 1), np.maximum(ratio / factor, factor / ratio) < 1.25])
        )
    abs_rel, delta = np.concatenate(errors, 1).mean(1)
    scores = {"abs_rel": round(float(abs_rel), 5), "delta_125": round(float(delta), 5)}
    if found.c2w is not None and len(order) > 2:
        paths = (torch.from_numpy(np.asarray(path, np.float64)) for path in (found.c2w, known["c2w"][order]))
        ate = pose_scores(*paths).ate
        if ate is not None:
            scores["ate"] = round(ate, 5)
    return scores


def sampled(size: tuple[int, int], shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a map that lie nearest to the scored pixels of the truth."""
    rows, columns = (
        ((np.arange(few) * PIXELS + PIXELS // 2 + 0.5) / (few * PIXELS) * many).astype(int)
        for few, many in zip(shape, size, strict=True)
    )
    return rows[:, None], columns[None]


def difference(first: Path, second: Path) -> dict[str, float]:
    """How far two results are from each other: depths after one factor."""
    a, b = load(first), load(second)
    if a.size != b.size or a.num_frames != b.num_frames:
        raise ValueError(
            f"expected results of one size, got {a.num_frames}x{a.size} and {b.num_frames}x{b.size}"
        )
    parts, unequal = [], 0
    for t in range(a.num_frames):
        one, two = np.asarray(a.depth[t])[::PIXELS, ::PIXELS], np.asarray(b.depth[t])[::PIXELS, ::PIXELS]
        both = np.isfinite(one) & np.isfinite(two)
        unequal += int((np.isfinite(one) != np.isfinite(two)).sum())
        parts.append(np.log(one[both]) - np.log(two[both]))
    apart = np.concatenate(parts)
    apart = np.abs(apart - np.median(apart))
    return {
        "median_relative": round(float(np.median(apart)), 6),
        "share_beyond_1_percent": round(float((apart > 0.01).mean()), 5),
        "known_in_one_only": unequal,
    }


def compare_processes(
    trees: Sequence[Tree], clip: Path, frames: int, repeat: int, folder: Path
) -> dict[str, Any]:
    """A B A B of one clip; the last results are scored and compared."""
    runs: dict[str, list[dict[str, Any]]] = {tree.name: [] for tree in trees}
    for turn in range(repeat):
        for tree in trees:
            runs[tree.name].append(run_once(tree, clip, frames, folder / f"{tree.name}-{frames}-{turn}"))
            print(f"  {tree.name}: {json.dumps(runs[tree.name][-1])}", file=sys.stderr, flush=True)
    network = {}
    for tree in trees:
        one = run_once(tree, clip, frames, folder / f"{tree.name}-{frames}-one", threads=1)
        network[tree.name] = one["network_thread_s"]
    middle = {name: summary(found, network[name]) for name, found in runs.items()}
    last = [folder / f"{tree.name}-{frames}-{repeat - 1}" for tree in trees]
    truth = clip.with_name("truth.npz")
    exact = truth.is_file() and clip.name == "clip.mp4"
    return {
        "runs": runs,
        "network_cpu_s": network,
        "median": middle,
        "ratio": ratios(middle),
        "accuracy": {t.name: accuracy(r, truth) for t, r in zip(trees, last, strict=True)} if exact else None,
        "difference": difference(*last),
    }


def summary(runs: Sequence[dict[str, Any]], network_cpu: float) -> dict[str, float]:
    """Medians over the runs; ``without_network`` takes the network's own seconds of each run off."""
    names = ("first_line_s", "wall_s", "cpu_s", "peak_mb")
    found = {
        name: statistics.median(run[name] for run in runs)
        for name in names
        if all(run[name] is not None for run in runs)
    }
    found["wall_without_network_s"] = statistics.median(run["wall_s"] - run["network_wall_s"] for run in runs)
    found["cpu_without_network_s"] = found["cpu_s"] - network_cpu
    for kind in ("stages_s", "stages_cpu_s"):
        for stage in sorted({name for run in runs for name in run[kind]}):
            found[f"{kind[:-2]} {stage}"] = statistics.median(run[kind].get(stage, 0.0) for run in runs)
    return {name: round(value, 3) for name, value in found.items()}


def ratios(middle: dict[str, dict[str, float]]) -> dict[str, float]:
    before, after = middle["before"], middle["after"]
    return {name: round(after[name] / before[name], 3) for name in after if before.get(name)}


def compare_fusion(trees: Sequence[Tree], name: str, repeat: int, folder: Path) -> dict[str, Any]:
    """Fusion alone, A B A B, on windows drawn once."""
    from make_alignment_scenarios import Plan, make

    frames, height, width = FUSION[name]
    path = folder / f"{name}.npz"
    np.savez(path, **make(Plan(name, 31, frames, height, width, 0.9)))  # type: ignore[arg-type]
    runs: dict[str, list[dict[str, Any]]] = {tree.name: [] for tree in trees}
    for turn in range(repeat):
        for tree in trees:
            out = folder / f"{name}-{tree.name}-{turn}.json"
            command = [tree.python, str(tree.folder / "benchmarks" / "alignment.py"), "--scenario", str(path)]
            subprocess.run(
                [*command, "--mode", "corrected", "--json", str(out)],
                env={**os.environ, "PYTHONPATH": str(tree.folder)}, check=True, stdout=sys.stderr,
            )  # fmt: skip
            runs[tree.name].append(json.loads(out.read_text("utf-8"))[0])
    path.unlink()
    kept = (
        "cpu_seconds",
        "wall_seconds",
        "peak_rss_mb",
        "abs_rel",
        "delta_125",
        "ate",
        "rpe_rot_deg",
        "focal_percent",
    )
    middle = {
        side: {key: statistics.median(run[key] for run in found) for key in kept} for side, found in runs.items()
    }  # fmt: skip
    return {
        "runs": runs,
        "median": middle,
        "ratio": ratios({s: {k: m[k] for k in kept[:3]} for s, m in middle.items()}),
    }


def table(cases: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    for name, case in cases.items():
        yield f"\n{name}" + "".join(f", {k} {v}" for k, v in (case.get("difference") or {}).items())
        yield "| | before | after | ratio |\n|---|---|---|---|"
        before, after = case["median"]["before"], case["median"]["after"]
        for row in after:
            yield f"| {row} | {before.get(row, '')} | {after[row]} | {case['ratio'].get(row, '')} |"
        scores = case.get("accuracy")
        for row in scores["after"] if scores else ():
            yield f"| {row} | {scores['before'].get(row, '')} | {scores['after'][row]} | |"


def machine() -> dict[str, Any]:
    model = ""
    if Path("/proc/cpuinfo").is_file():
        names = [
            l for l in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if l.startswith("model name")
        ]
        model = names[0].partition(":")[2].strip() if names else ""
    return {"cpu": model, "cores": os.cpu_count(), "load": [round(x, 2) for x in os.getloadavg()],
            "python": platform.python_version(), "torch": torch.__version__}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", required=True, metavar="COMMIT", help="commit to compare with")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the other commit")
    parser.add_argument("--only", choices=("process", "fusion"), help="one part of the cases")
    parser.add_argument("--frames", type=int, nargs="*", default=[16, 100])
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 576], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--clip", type=Path, nargs="*", default=[], help="further clips, without truth")
    parser.add_argument("--fusion", nargs="*", choices=tuple(FUSION), default=list(FUSION))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--label", help="added to the name of the result")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    started = machine()
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        unpack(options.against, folder / "before")
        copy_checkout(folder / "after")
        trees = (
            Tree("before", folder / "before", options.python, git("rev-parse", options.against)),
            Tree(
                "after",
                folder / "after",
                sys.executable,
                git("describe", "--always", "--dirty", "--abbrev=40"),
            ),
        )
        if options.only != "fusion":
            width, height = options.size
            clips = [
                draw(folder, max(options.frames), (height, width)),
                *(clip.resolve() for clip in options.clip),
            ]
            for clip in clips:
                for frames in options.frames:
                    cases[f"{clip.name}, {frames} frames"] = compare_processes(
                        trees, clip, frames, options.repeat, folder
                    )
        if options.only != "process":
            for name in options.fusion:
                cases[f"fusion {name}"] = compare_fusion(trees, name, options.repeat, folder)
    print("\n".join(table(cases)))
    result = {
        "date": str(datetime.date.today()),
        "command": " ".join(sys.argv),
        "before": trees[0].commit,
        "after": trees[1].commit,
        "machine_before": started,
        "machine_after": machine(),
        "cases": cases,
    }
    label = f"-{options.label}" if options.label else ""
    path = options.results / f"{datetime.date.today()}-speed{label}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
