"""R15 to R17, R23 and R24: weights, archives, old results, installations."""

import ast
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults import clips
from benchmarks.faults.harness import (
    REPOSITORY,
    Ended,
    Outcome,
    Size,
    Tally,
    command,
    forked,
    reconstruct,
    reliability,
)


def refused(run, error_name: str = "CheckpointError") -> Ended:  # type: ignore[no-untyped-def]
    """Call in a fork: code 0 where the named error comes, 1 where nothing does, 2 for any other error."""

    def child() -> int:
        from geo4d import errors

        try:
            run()
        except getattr(errors, error_name) as error:
            print(error)
            return 0
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
        return 1

    return forked(child)


@reliability(
    "R15",
    "weights that are changed, cut or missing",
    "found by size and SHA-256 before they are used; --offline is offline",
)
def r15(folder: Path, size: Size) -> Outcome:
    import torch

    from geo4d.apps import cli
    from geo4d.models.store.folder import ModelFolder, write_model_folder

    tally = Tally()

    def fresh(name: str) -> Path:
        place = folder / name
        config = {"family": "toy", "network": {}, "source": "x"}
        write_model_folder(place, {"net.a": torch.ones(1000), "net.b": torch.zeros(10)}, config, "notice")
        return place

    def load(place: Path) -> object:
        return ModelFolder.open(place, "toy").part("net")

    place = fresh("whole")
    tally.case("unchanged", refused(lambda: load(place)).code == 1)
    for seed in range(20):
        place = fresh(f"flipped_{seed}")
        shard = next(place.glob("*.safetensors"))
        data = bytearray(shard.read_bytes())
        at = int(np.random.default_rng(seed).integers(len(data)))
        data[at] ^= 16
        shard.write_bytes(bytes(data))
        ended = refused(lambda place=place: load(place))  # type: ignore[misc]
        tally.case(f"bit of byte {at} of a shard flipped", ended.code == 0, ended.last or "loaded")
    place = fresh("cut")
    shard = next(place.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-40])
    tally.case("shard cut", refused(lambda: load(place)).code == 0)
    place = fresh("gone")
    next(place.glob("*.safetensors")).unlink()
    tally.case("shard missing", refused(lambda: load(place)).code == 0)

    clip = clips.write(folder / "clip.mp4", 4)
    cut = folder / "model.safetensors"
    cut.write_bytes((REPOSITORY / "geo4d/models/tiny/model.safetensors").read_bytes()[:100_000])
    for weights in (cut, folder / "nothing"):
        ended = command("reconstruct", clip, "-o", folder / "out", "--weights", weights, "--quiet")
        tally.case(f"--weights {weights.name}", ended.code == 5 and ended.told, ended.last)

    def offline() -> int:
        def watch(event: str, values: tuple) -> None:
            if event in ("socket.connect", "socket.getaddrinfo"):
                os.write(1, f"WATCHED {event}\n".encode())

        os.environ["GEO4D_MODELS"] = str(folder / "store")
        sys.addaudithook(watch)
        return cli.main(["models", "pull", "moge", "--offline"])

    ended = forked(offline)
    tally.case("pull --offline", ended.code == 5 and "WATCHED" not in ended.out, ended.last)
    return tally.outcome()


def gadgets(mark: Path) -> Iterator[tuple[str, bytes]]:
    """Pickles that run something when they are loaded by an ordinary unpickler; each would make ``mark``."""
    shell, code = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    calls = [
        ("os", "system", (shell,)), ("posix", "system", (shell,)), ("os", "popen", (shell,)),
        ("subprocess", "Popen", (["touch", str(mark)],)), ("subprocess", "run", (["touch", str(mark)],)),
        ("subprocess", "call", (["touch", str(mark)],)), ("subprocess", "check_output", (["touch", str(mark)],)),
        ("subprocess", "getoutput", (shell,)), ("builtins", "eval", (code,)), ("builtins", "exec", (code,)),
        ("builtins", "open", (str(mark), "w")), ("io", "open", (str(mark), "w")), ("_io", "FileIO", (str(mark), "w")),
        ("timeit", "timeit", (code,)), ("pty", "spawn", (["touch", str(mark)],)), ("os", "mkdir", (str(mark),)),
        ("os", "makedirs", (str(mark),)), ("os", "mkfifo", (str(mark),)), ("os", "symlink", ("/", str(mark))),
        ("shutil", "copyfile", ("/etc/hostname", str(mark))), ("runpy", "run_path", (str(mark.with_suffix(".py")),)),
        ("code", "InteractiveInterpreter", ()), ("torch.serialization", "load", (str(mark),)),
        ("numpy", "save", (str(mark), 0)), ("importlib", "import_module", ("antigravity",)),
    ]  # fmt: skip
    for module, name, values in calls:
        body = b"".join(pickle.dumps(value, 0)[:-1] for value in values)
        yield f"{module}.{name}", f"c{module}\n{name}\n(".encode() + body + b"tR."
        yield (
            f"{module}.{name} in a state",
            f"(dS'state_dict'\nc{module}\n{name}\n(".encode() + body + b"tRs.",
        )


@reliability("R16", "checkpoints with code in them", "none runs; refused; no unsafe call in the package")
def r16(folder: Path, size: Size) -> Outcome:
    from geo4d.models.store.reading import read_state

    mark = folder / "mark"
    mark.with_suffix(".py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    tally = Tally()
    for name, text in gadgets(mark):
        for kind in ("pkl", "pt"):
            path = folder / f"evil.{kind}"
            if kind == "pkl":
                path.write_bytes(text)
            else:
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("archive/data.pkl", text)
                    archive.writestr("archive/version", "3\n")
                    archive.writestr("archive/byteorder", "little")
            ended = refused(lambda path=path: read_state(path))  # type: ignore[misc]
            ran = os.path.lexists(mark)
            tally.case(f"{name} as {kind}", ended.code == 0 and not ran, f"ran: {ran}; {ended.last}")
            if ran:
                shutil.rmtree(mark) if mark.is_dir() and not mark.is_symlink() else mark.unlink()
    for line in unsafe_calls():
        tally.case("source", False, line)
    return tally.outcome()


NO_FILE = {"geo4d/batch/ray_actor.py": "pickle.loads(self._payload)"}
"""What unpickles something that comes from no file: a job, from the process that started the actor."""


def unsafe_calls() -> list[str]:
    """Calls in the package that could run what a file says."""
    names = {
        "eval",
        "exec",
        "pickle.load",
        "pickle.loads",
        "yaml.load",
        "yaml.unsafe_load",
        "marshal.loads",
        "dill.load",
    }
    lines = []
    for path in sorted((REPOSITORY / "geo4d").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if NO_FILE.get(str(path.relative_to(REPOSITORY))) == ast.unparse(node):
                continue
            if name in names or given.get("allow_pickle") == "True" or given.get("weights_only") == "False":
                lines.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {ast.unparse(node)[:80]}")
            if name == "torch.load" and given.get("weights_only") != "True":
                lines.append(
                    f"{path.relative_to(REPOSITORY)}:{node.lineno}: torch.load without weights_only=True"
                )
    return lines


def _npy(shape: tuple[int, ...], data: bytes = b"", kind: str = "<f4") -> bytes:
    file = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    return file.getvalue() + data


@reliability(
    "R17",
    "archives that lead outside, lie about sizes or unpack to very much",
    "refused; less than 300 MB and 10 s",
)
def r17(folder: Path, size: Size) -> Outcome:
    from geo4d.formats.arrays import load_arrays, load_npz

    inside = folder / "inside"
    inside.mkdir()
    tally, idle = Tally(), forked(lambda: 0).peak_mib
    path = inside / "a.npz"
    members: dict[str, dict[str, bytes | int]] = {
        "parent": {"../outside.npy": _npy((2,), bytes(8))},
        "absolute": {f"{folder}/outside.npy": _npy((2,), bytes(8))},
        "lies": {"depth.npy": _npy((10**6, 10**6))},
        "objects": {"depth.npy": _npy((1,), b"cos\nsystem\n(S'true'\ntR.", "|O")},
        "ratio": {"depth.npy": 6000},
        "unused": {"depth.npy": _npy((2,), bytes(8)), "other.npy": 6000},
    }
    for name, files in members.items():
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in files.items():
                if isinstance(content, bytes):
                    archive.writestr(member, content)
                    continue
                with archive.open(member, "w", force_zip64=True) as file:
                    file.write(_npy((content, 2**18)))
                    for _ in range(content):
                        file.write(bytes(2**20))
        ended = refused(lambda: load_npz(path), "InputError")
        outside = sorted(entry.name for entry in folder.iterdir()) != ["inside"]
        harmless = name in ("parent", "absolute") and ended.code in (0, 1)
        good = (
            (ended.code == 0 or harmless)
            and not outside
            and ended.peak_mib - idle < 300
            and ended.seconds < 10
        )
        tally.case(f"npz {name}", good, f"{ended.peak_mib - idle} MiB, {ended.seconds:.1f} s, {ended.last}")
    path = inside / "window.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../outside", b"x")
        archive.writestr("zarr.json", b"{}")
    ended = refused(lambda: load_arrays(path), "InputError")
    tally.case("zarr parent", ended.code == 0 and not (folder / "outside").exists(), ended.last)
    clip = clips.write(inside / "clip.mp4", 4)
    reconstruct(clip, inside / "out")
    for value in ([4, 10**6, 10**6], [10**9, 24, 32], [-1, 24, 32], "x"):
        shutil.rmtree(inside / "copy", ignore_errors=True)
        shutil.copytree(inside / "out", inside / "copy")
        meta = inside / "copy/arrays.zarr/depth/zarr.json"
        text = json.loads(meta.read_text())
        meta.write_text(json.dumps({**text, "shape": value}))
        ended = command("export", inside / "copy", "--format", "npz", "-o", inside / "x.npz", timeout=30)
        good = ended.code == 4 and ended.told and ended.peak_mib - idle < 300
        tally.case(f"zarr shape {value}", good, f"{ended.peak_mib - idle} MiB, {ended.last}")
    return tally.outcome()


@reliability("R23", "results of earlier versions", "every one loads with its recorded values")
def r23(folder: Path, size: Size) -> Outcome:
    import geo4d

    fixtures = REPOSITORY / "tests/fixtures/results"
    places = (
        [place for place in fixtures.glob("*") if (place / "manifest.json").is_file()]
        if fixtures.is_dir()
        else []
    )
    if not places:
        return Outcome(None, "no result of an earlier version is in tests/fixtures/results")
    tally = Tally()
    for place in places:
        copy = folder / place.name
        shutil.copytree(place, copy)
        try:
            result = geo4d.load(copy)
            wrong = []
            with np.load(fixtures / "values.npz", allow_pickle=False) as wanted:
                for name in wanted.files:
                    value = np.asarray(getattr(result, name)[:])
                    if name == "rgb":  # kept as 8 bits
                        value = np.round(value * 255).astype(np.uint8)
                    if not np.array_equal(value, wanted[name], equal_nan=value.dtype.kind == "f"):
                        wrong.append(name)
            tally.case(place.name, not wrong, f"other values of {', '.join(wrong)}")
        except Exception as error:
            tally.case(place.name, False, f"{type(error).__name__}: {error}")
    return tally.outcome(", ".join(place.name for place in places))


@reliability(
    "R24",
    "installation",
    "help, doctor and a run on every interpreter (what needs no torch where that needs CUDA); import under 1 s; "
    "at most 15 dependencies, no GPL",
)
def r24(folder: Path, size: Size) -> Outcome:
    import importlib.metadata as metadata
    import re
    import tomllib

    tally = Tally()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [re.split(r"[<>=!~ \[;]", text)[0] for text in project["dependencies"]]
    tally.case("direct dependencies", len(needed) <= 15, str(len(needed)))
    for name in needed:
        info = metadata.metadata(name)
        licence = f"{info.get('License-Expression') or info.get('License') or ''} {info.get_all('Classifier') or ''}"
        gpl = re.search(r"(?<!L)(?<!Lesser )GPL|GNU General Public", licence[:4000])
        tally.case(f"licence of {name}", gpl is None, licence[:100])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = time.process_time(), os.times().children_user
    subprocess.run([sys.executable, "-c", "import geo4d"], env=environment, check=True)
    seconds = os.times().children_user - started[1]
    tally.case("import", seconds < 1.0, f"{seconds:.2f} s of CPU")
    figures = [f"import {seconds:.2f} s"]
    if size.installs:
        for interpreter in interpreters():
            figure, problem = install_and_run(interpreter, folder)
            tally.case(interpreter, not problem, problem)
            figures.append(f"{Path(interpreter).parent.parent.name} {figure}")
    return tally.outcome("; ".join(figures))


def interpreters() -> list[str]:
    """Pythons on this machine that the project claims: those that pyenv keeps before those on the path."""
    found = []
    for minor in range(11, 15):
        kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        names = [*kept.glob(f"3.{minor}.*/bin/python"), shutil.which(f"python3.{minor}")]
        test = f"import sys; sys.exit(sys.version_info[:2] != (3, {minor}))"
        works = (
            str(name)
            for name in names
            if name and subprocess.run([name, "-c", test], capture_output=True).returncode == 0
        )
        found += [name for name in (next(works, None),) if name is not None]
    return found


def install_and_run(interpreter: str, folder: Path) -> tuple[str, str]:
    """A wheel in a fresh environment, then help, doctor and the example; where torch comes with gigabytes of CUDA, all
    that needs no torch.

    Returns:
        what was run in how many seconds, and what went wrong.
    """
    version = _output([interpreter, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"], folder)
    place, wheels = folder / version, folder / "wheels"
    python, program = str(place / "bin/python"), str(place / "bin/geo4d")
    try:
        _output([interpreter, "-m", "venv", str(place)], folder)
        _output([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(REPOSITORY)], folder)
        wheel = str(next(wheels.glob("*.whl")))
        if (cuda := cuda_packages(python, wheel, folder)) > 0:
            return _run_without_torch(python, program, wheel, folder, cuda), ""
        _output([python, "-m", "pip", "install", "-q", wheel], folder)
        _output([program, "--help"], folder)
        _output([program, "doctor"], folder)
        before = os.times()
        example = REPOSITORY / "examples/clip.mp4"
        _output([program, "reconstruct", str(example), "-o", str(place / "out"), "--quiet"], folder)
        spent = os.times()
        seconds = spent.children_user + spent.children_system - before.children_user - before.children_system
        figure = f"example in {seconds:.0f} s of CPU"
        return figure, "" if seconds < 60 else figure
    except RuntimeError as error:
        return "failed", str(error)


def cuda_packages(python: str, wheel: str, folder: Path) -> int:
    """How many packages of CUDA an installation brings, by a resolution that downloads no package."""
    report = folder / "report.json"
    words = [python, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--report", str(report)]
    _output([*words, wheel], folder)
    names = [item["metadata"]["name"] for item in json.loads(report.read_text())["install"]]
    return sum(name.startswith("nvidia") for name in names)


_WITHOUT_TORCH = """
import importlib, pkgutil, sys
import geo4d
from geo4d.apps.commands.doctor import EXTRAS
left_out = {"torch", *(module for modules in EXTRAS.values() for module in modules.values())}
loaded, needs = 0, 0
for module in pkgutil.walk_packages(geo4d.__path__, "geo4d."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        loaded += 1
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in left_out:
            raise
        needs += 1
from geo4d.video.containers import VideoFile
from pathlib import Path
video = VideoFile(Path(sys.argv[1]))
shapes = {video.read(t).shape for t in range(video.num_frames)}
assert len(shapes) == 1
print(f"{loaded} of {loaded + needs} modules, {video.num_frames} frames of the example")
"""


def _run_without_torch(python: str, program: str, wheel: str, folder: Path, cuda: int) -> str:
    """What can be shown where torch is not installed; what was shown, and what was not."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needs = [need for need in project["dependencies"] if not need.startswith("torch")]
    started = time.monotonic()
    _output([python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *needs], folder)
    _output([python, "-m", "pip", "install", "-q", "--no-deps", wheel], folder)
    for words in ([], ["reconstruct"], ["export"], ["batch"], ["report"], ["models"]):
        _output([program, *words, "--help"], folder)
    shown = _output([python, "-c", _WITHOUT_TORCH, str(REPOSITORY / "examples/clip.mp4")], folder)
    done = subprocess.run([program, "doctor"], capture_output=True, text=True, env=_clean(), cwd=folder)
    if done.returncode != 1 or "torch is missing" not in done.stdout:
        raise RuntimeError(
            f"doctor without torch: code {done.returncode}: {done.stdout[-200:]}{done.stderr[-200:]}"
        )
    return (
        f"torch comes with {cuda} packages of CUDA and was left out; without it help, {shown}, doctor names it, "
        f"{time.monotonic() - started:.0f} s with installing; no reconstruction was run"
    )


def _output(words: list[str], folder: Path) -> str:
    """What a command outside the checkout prints.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(words, capture_output=True, text=True, env=_clean(), cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])}: code {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
