"""R7 to R14: what can happen to a run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.faults import clips
from benchmarks.faults.exports import target_name
from benchmarks.faults.harness import (
    REPOSITORY,
    Outcome,
    Size,
    Tally,
    arrays_sha256,
    begin,
    command,
    forked,
    reconstruct,
    reliability,
    stub_words,
    tree_sha256,
)

_CHILD = """
import json, resource, sys, time
from tests.support.truth import BoxWorld, TruthPredictor
import torch
torch.set_num_threads(1)
import geo4d.run.reconstruct
clip, output, motion = sys.argv[1], sys.argv[2], sys.argv[3] == "motion"
started = time.process_time()
model = TruthPredictor(BoxWorld((24, 40)), evidence="motion" if motion else None)
result = geo4d.reconstruct(clip, output, model=model, output_size="model", motion=motion)
print(json.dumps({
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "cpu_s": time.process_time() - started,
    "frames": result.num_frames,
}))
"""


@reliability(
    "R7",
    "memory and time of a long clip",
    "peak within 10 %, CPU time a frame within 15 % of the short clip's",
)
def r7(folder: Path, size: Size) -> Outcome:
    from tests.support.truth import BoxWorld

    notes, figures = [], []
    for kind, counts in (("plain", size.frames), ("motion", size.motion_frames)):
        if counts is None:
            continue
        rows = []
        for count in counts:
            world = BoxWorld((96, 160))
            pictures = ((world.rgb(t).numpy() * 255).astype(np.uint8) for t in range(count))
            clip = clips.write(folder / f"{count}.mp4", count, size=(96, 160), pictures=pictures)
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, str(clip), str(folder / f"{kind}_{count}"), kind],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                return Outcome(False, f"{count} frames: code {done.returncode}", [done.stderr[-300:]])
            rows.append(json.loads(done.stdout.splitlines()[-1]))
        short, long = rows
        memory = long["peak_mib"] / short["peak_mib"]
        speed = (long["cpu_s"] / long["frames"]) / (short["cpu_s"] / short["frames"])
        figures.append(
            f"{kind}: {counts[0]} to {counts[1]} frames {short['peak_mib']:.0f} to {long['peak_mib']:.0f} MiB "
            f"({memory:.3f}), time a frame x {speed:.2f}"
        )
        if memory > 1.10 or speed > 1.15:
            notes.append(figures[-1])
    return Outcome(not notes, "; ".join(figures), notes)


@reliability("R8", "kill -9 at random moments, then --resume", "bit-identical result, nothing left behind")
def r8(folder: Path, size: Size) -> Outcome:
    clip = clips.write(folder / "clip.mp4", 64)
    slow = ("--model-option", "pause_s=0.05", "--no-split-shots")
    started = time.monotonic()
    whole = reconstruct(clip, folder / "whole", *slow)
    seconds = time.monotonic() - started
    if whole.code != 0:
        return Outcome(False, whole.last)
    want = arrays_sha256(folder / "whole")
    chance, tally, kept = random.Random(5), Tally(), 0
    from geo4d.apps import cli

    for number in range(size.kills):
        output = folder / f"killed_{number}"
        moment = seconds * (0.05 + 0.93 * (number + chance.random()) / size.kills)
        with open(os.devnull, "w") as null:
            words = stub_words(clip, output, *slow)
            child = begin(lambda words=words: cli.main(words), null.fileno(), null.fileno())  # type: ignore[misc]
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        run = folder / f".{output.name}.geo4d-run"
        kept += len(list(run.glob("windows/window_*")))
        if not output.exists():
            again = reconstruct(clip, output, *slow, *(["--resume"] if run.exists() else []))
            if again.code != 0:
                tally.case(f"after {moment:.2f} s", False, again.last)
                continue
        good = arrays_sha256(output) == want
        if run.exists():  # killed after publishing: the next start on this output tidies up
            reconstruct(clip, output, *slow)
        tally.case(f"after {moment:.2f} s", good and not run.exists(), f"same {good}, left {run.exists()}")
    return tally.outcome(f"{kept} finished windows were kept")


def full_disk(folder: Path, mib: int) -> Path | None:
    """A file system of its own, or None where this may not be mounted."""
    place = folder / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)]
    return place if subprocess.run(words, capture_output=True).returncode == 0 else None


@reliability("R9", "a disk that fills up", "path and bytes named, old result readable, nothing half-written")
def r9(folder: Path, size: Size) -> Outcome:
    clip = clips.write(folder / "clip.mp4", 24)
    disk = full_disk(folder, 24)
    if disk is None:
        return Outcome(None, "no right to mount a small file system here")
    tally = Tally()
    try:
        _full_while_running(clip, disk, tally)
        _full_while_exporting(folder, clip, disk, tally)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    return tally.outcome()


def _fill(disk: Path, left: int) -> Path:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filling").write_bytes(bytes(max(0, free - left)))
    return disk / "filling"


def _full_while_running(clip: Path, disk: Path, tally: Tally) -> None:
    import geo4d
    from geo4d.errors import Geo4DError
    from geo4d.models.base import load_predictor

    old = disk / "old"
    if reconstruct(clip, old).code != 0:
        tally.case("first run", False)
        return
    want = arrays_sha256(old)
    for stage, done in (("predict", 1), ("align", 100), ("write", 1), ("write", 24)):
        for left in (0, 3000, 20_000):

            def run(stage: str = stage, done: int = done, left: int = left) -> int:
                hit = []

                def watch(name: str, count: int, total: int) -> None:
                    if name == stage and count >= done and not hit:
                        hit.append(_fill(disk, left))

                try:
                    model = load_predictor("stub")
                    geo4d.reconstruct(
                        clip,
                        old,
                        model=model,
                        overwrite=True,
                        output_size="model",
                        on_progress=watch,
                        tries=0,
                    )
                except Geo4DError as error:
                    print(f"error: {error}", file=sys.stderr)
                    return error.exit_code
                return 0

            ended = forked(run)
            (disk / "filling").unlink(missing_ok=True)
            said = ended.code == 0 or (
                ended.code == 4
                and str(disk) in ended.err
                and "bytes" in ended.err
                and "disk is full" in ended.err
            )
            same = ended.code == 0 or arrays_sha256(old) == want
            tally.case(f"run, {left} bytes left at {stage} {done}", said and same and ended.told, ended.last)
            for leftover in disk.glob(".old*"):
                shutil.rmtree(leftover, ignore_errors=True)


def _full_while_exporting(folder: Path, clip: Path, disk: Path, tally: Tally) -> None:
    from geo4d.export import FORMATS

    source = folder / "source"
    reconstruct(clip, source)
    for format_name in FORMATS:
        for name in {target_name(format_name), "folder"}:
            for left in (0, 12_288):
                before = {path.name for path in disk.iterdir()} | {"filling"}
                _fill(disk, left)
                target = disk / "above" / name
                ended = command("export", source, "--format", format_name, "-o", target)
                (disk / "filling").unlink()
                after = {path.name for path in disk.iterdir()} | {"filling"}
                said = ended.code == 4 and str(target) in ended.err and "bytes are needed" in ended.err
                good = ended.code == 0 or (said and after == before)
                tally.case(f"export {format_name} to {name}, {left} left", good and ended.told, ended.last)
                shutil.rmtree(disk / "above", ignore_errors=True)
        _full_while_replacing(source, format_name, disk / "above" / target_name(format_name), disk, tally)
        shutil.rmtree(disk / "above", ignore_errors=True)


def _full_while_replacing(source: Path, format_name: str, target: Path, disk: Path, tally: Tally) -> None:
    """What stood there before an export that fails stays as it was."""
    words = ("export", source, "--format", format_name, "-o", target, "--overwrite")
    ended = command(*words)
    if ended.code != 0:
        tally.case(f"export {format_name} with room", False, ended.last)
        return
    before = tree_sha256(target)
    _fill(disk, 0)
    ended = command(*words, "--frames", "0:2")
    (disk / "filling").unlink()
    same = tree_sha256(target) == before
    told = ended.code == 4 and ended.told and str(target) in ended.err
    tally.case(f"export {format_name} onto an older one", told and same, f"unchanged: {same}; {ended.last}")


@reliability(
    "R10",
    "out of memory at every stage",
    "smaller pieces and the same result, or code 7 with the option to use",
)
def r10(folder: Path, size: Size) -> Outcome:
    from geo4d.run import align, write

    flow = import_module("geo4d.run.reconstruct")  # the attribute of that name is the function
    from geo4d.apps import cli
    from tests.support.truth import TruthPredictor

    clip = clips.write(folder / "clip.mp4", 24)
    reconstruct(clip, folder / "whole", "--output-size", "48x36")
    want = arrays_sha256(folder / "whole")
    tally = Tally()
    places = {
        "reading": (flow, "open_clip"), "shots": (flow, "list_shots"), "predict": (TruthPredictor, "predict"),
        "align": (align, "align"), "write": (write, "resize_maps"),
    }  # fmt: skip
    for name, (owner, attribute) in places.items():
        for times in (1, 10**9):
            output = folder / f"{name}_{times}"

            def run(
                owner: object = owner, attribute: str = attribute, times: int = times, output: Path = output
            ) -> int:
                usual: Callable = getattr(owner, attribute)
                left = [times]

                def short(*words: object, **rest: object) -> object:
                    if left[0] > 0:
                        left[0] -= 1
                        raise MemoryError("DefaultCPUAllocator: can't allocate memory")
                    return usual(*words, **rest)

                setattr(owner, attribute, short)
                return cli.main(stub_words(clip, output, "--output-size", "48x36"))

            ended = forked(run)
            recovered = ended.code == 0 and arrays_sha256(output) == want
            told = ended.code == 7 and ("use " in ended.err) and ended.told
            tally.case(f"{name}, {times} times", recovered or told, ended.last)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "tests/models/geo4d/test_pipeline.py", "-k", "out_of_memory"],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip
    good = done.returncode == 0 and "2 passed" in done.stdout
    tally.case(
        "encoder, UNet and decoder of the Geo4D network", good, done.stdout[-240:] + done.stderr[-240:]
    )
    codes = {}
    for mib in (50, 150, 300, 500, 800, 1200, 2000):
        ended = command(
            "reconstruct", REPOSITORY / "examples/clip.mp4", "-o", folder / f"limit_{mib}", "--quiet", "--stop", "16",
            timeout=600, more_memory=mib * 2**20,
        )  # fmt: skip
        codes[mib] = ended.code
        tally.case(f"bundled model with {mib} MiB more", ended.code in (0, 7) and ended.told, ended.last)
    return tally.outcome(f"codes of the bundled model by MiB: {codes}")


@reliability(
    "R11", "values that are not finite", "window flagged, neighbours unharmed, code 9 unless --keep-going"
)
def r11(folder: Path, size: Size) -> Outcome:
    import geo4d

    clip = clips.write(folder / "clip.mp4", 24)
    tally = Tally()
    few = ("--model-option", "nan_windows=[2]")
    ended = reconstruct(clip, folder / "few", *few)
    result = geo4d.load(folder / "few")
    tally.case("code", ended.code == 9 and ended.told, ended.last)
    tally.case(
        "flagged", list(result.diagnostics["not_finite"]) == ["2"], str(result.diagnostics["not_finite"])
    )
    depth = np.asarray(result.depth[:])
    tally.case("neighbours", bool(np.isfinite(depth[:8]).all() and np.isfinite(depth[20:]).all()))
    tally.case("cameras", bool(np.isfinite(result.c2w).all()))
    ended = reconstruct(clip, folder / "kept", *few, "--keep-going")
    tally.case("--keep-going", ended.code == 0, ended.last)
    ended = reconstruct(clip, folder / "all", "--model-option", f"nan_windows={list(range(9))}")
    tally.case("all windows", ended.code == 8 and ended.told, ended.last)
    command("report", folder / "few", "-o", folder / "few.html")
    tally.case("report", "not finite" in (folder / "few.html").read_text())
    return tally.outcome()


@reliability(
    "R12", "clips without parallax or without anything", "finite poses and depth, or refused with a word"
)
def r12(folder: Path, size: Size) -> Outcome:
    import cv2

    import geo4d

    picture = next(clips.frames(1, (384, 512)))
    small = cv2.resize(picture, (128, 96), interpolation=cv2.INTER_AREA)
    sky = np.repeat(np.linspace(200, 120, 96).astype(np.uint8)[:, None, None], 128, 1).repeat(3, 2)
    count = 16

    def panned(t: int) -> np.ndarray:
        return cv2.warpAffine(picture, np.float32([[1, 0, -150 - 2 * t], [0, 1, -100]]), (128, 96))

    def turned(t: int) -> np.ndarray:
        angle = np.deg2rad(0.8 * t)
        here, there = (
            np.array([[110, 0, 64], [0, 110, 48], [0, 0, 1.0]]),
            np.array([[110, 0, 256], [0, 110, 192], [0, 0, 1]]),
        )
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        return cv2.warpPerspective(picture, here @ turn @ np.linalg.inv(there), (128, 96))

    kinds: dict[str, Callable[[int], np.ndarray]] = {
        "static": lambda t: small, "turning": turned, "plane": panned, "sky": lambda t: sky,
        "black": lambda t: np.zeros_like(small),
    }  # fmt: skip
    tally = Tally()
    for name in kinds if size.installs else ("static", "black"):
        pictures = [kinds[name](t) for t in range(count)]
        clip = clips.write(
            folder / f"{name}.mkv", count, size=(96, 128), codec="ffv1", pixels="bgr0", pictures=pictures
        )
        ended = command("reconstruct", clip, "-o", folder / name, "--quiet", timeout=600)
        if not (folder / name).exists():
            tally.case(name, ended.code == 8 and ended.told and name in ("sky", "black"), ended.last)
            continue
        result = geo4d.load(folder / name)
        depth, centre = np.asarray(result.depth[:]), np.asarray(result.c2w)[:, :3, 3]
        middle = float(np.median(depth[np.isfinite(depth)])) if np.isfinite(depth).any() else np.nan
        drift = float(np.linalg.norm(centre - centre[0], axis=1).max()) / middle
        good = ended.told and bool(np.isfinite(centre).all()) and ended.code in (0, 9)
        if name == "static":
            good &= drift < 1e-3
        if name == "black":
            good &= ended.code == 9
        tally.case(name, good, f"drift {drift:.2g} of the depth, {ended.last}")
    return tally.outcome()


@reliability("R13", "the same run twice, and with other numbers of workers", "bit-identical")
def r13(folder: Path, size: Size) -> Outcome:
    from geo4d.apps import cli

    clip = clips.write(folder / "clip.mp4", 24)
    tally, sums = Tally(), set()
    for number, cores in enumerate((1, 1, 4)):
        output = folder / f"out_{number}"

        def run(output: Path = output, cores: int = cores) -> int:
            os.cpu_count = lambda: cores  # type: ignore[assignment]
            return cli.main(stub_words(clip, output, "--output-size", "48x36"))

        ended = forked(run)
        tally.case(f"run with {cores} workers", ended.code == 0, ended.last)
        sums.add(arrays_sha256(output))
    tally.case("same bits", len(sums) == 1, str(sums))
    return tally.outcome()


@reliability(
    "R14",
    "several processes on one output, and signals",
    "one wins, the others say so; a signal leaves a resumable run",
)
def r14(folder: Path, size: Size) -> Outcome:
    from geo4d.apps import cli

    clip = clips.write(folder / "clip.mp4", 32)
    slow = ("--model-option", "pause_s=0.3")
    tally = Tally()

    def start(output: Path, *words: str) -> tuple[int, Path]:
        text = folder / f"{output.name}_{time.monotonic_ns()}.txt"
        with text.open("w") as file:
            return begin(
                lambda: cli.main(stub_words(clip, output, *slow, *words)), file.fileno(), file.fileno()
            ), text

    def end(child: int) -> int:
        status = os.waitpid(child, 0)[1]
        return os.waitstatus_to_exitcode(status)

    children = [start(folder / "shared") for _ in range(size.processes)]
    codes = [end(child) for child, _ in children]
    good = codes.count(0) == 1 and codes.count(4) == size.processes - 1
    tally.case(f"{size.processes} at once", good, str(codes))
    tally.case("readable", command("report", folder / "shared").code == 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        output = folder / number.name
        child, text = start(output)
        began = time.monotonic()  # in the middle of the run, however fast the machine is
        while not list(folder.glob(f".{output.name}.geo4d-run/windows/window_*")):
            if time.monotonic() - began > 120:
                break
            time.sleep(0.01)
        os.kill(child, number)
        code = end(child)
        tally.case(
            number.name, code == 128 + number and "error: " in text.read_text(), f"{code} {text.read_text()}"
        )
        again = reconstruct(clip, output, *slow, "--resume")
        tally.case(f"resumed after {number.name}", again.code == 0, again.last)
    return tally.outcome()
