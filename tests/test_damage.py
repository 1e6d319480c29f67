"""A damaged result is an error or gives the values that were written: bits flipped, files cut, swapped, added, taken."""

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from geo4d.errors import OutputError
from geo4d.results.manifest import ARRAYS
from geo4d.results.reader import load_result
from geo4d.types import Reconstruction

RESULTS = Path(__file__).parent / "fixtures" / "results"
MAPS = ("depth", "confidence", "dynamic", "rgb")
ARRAY_NAMES = (*MAPS, "c2w", "intrinsics", "times_s", "source_frames", "scene", "reliable")


def values(folder: Path) -> dict[str, object]:
    """Everything that a reader gets of a result."""
    result = load_result(folder)
    read: dict[str, object] = {name: np.asarray(getattr(result, name)[:]) for name in ARRAY_NAMES}
    plain = (result.scale_kind, result.size, dict(result.provenance), dict(result.diagnostics))
    return {**read, "plain": plain}


def same(a: dict[str, object], b: dict[str, object]) -> bool:
    return (
        all(
            np.array_equal(a[name], b[name], equal_nan=name in ("depth", "dynamic"))
            and a[name].dtype == b[name].dtype
            for name in ARRAY_NAMES
        )
        and a["plain"] == b["plain"]
    )


@pytest.fixture(params=["1", "2"])
def result(request: pytest.FixtureRequest) -> Path:
    return RESULTS / request.param


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A result of this version, to be damaged."""
    return Path(shutil.copytree(RESULTS / "2", tmp_path / "r"))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_results_of_every_format_give_the_values_that_were_written(result: Path) -> None:
    recorded = np.load(RESULTS / "values.npz")
    read = load_result(result)
    assert isinstance(read, Reconstruction)
    for name in ARRAY_NAMES:
        found = np.asarray(getattr(read, name)[:])
        if name == "rgb":
            found = np.round(found * 255).astype(np.uint8)
        assert np.array_equal(found, recorded[name], equal_nan=name in ("depth", "dynamic")), name
    assert read.provenance["model"]["name"] == "tiny"
    assert read.diagnostics["windows"] == [[0, 1, 2, 3, 4, 5]]


def test_the_list_of_sums_is_what_sha256sum_reads(damaged: Path) -> None:
    def check() -> int:
        command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
        return subprocess.run(command, cwd=damaged, capture_output=True, check=False).returncode

    if shutil.which("sha256sum") is None:
        pytest.skip("needs sha256sum")
    assert check() == 0
    listed = {line[66:] for line in (damaged / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(damaged).as_posix() for path in files(damaged)}
    assert listed == there - {"SHA256SUMS", "manifest.json"}
    chunk = damaged / ARRAYS / "c2w" / "c.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    assert check() != 0


def test_one_flipped_bit_anywhere_is_an_error_or_changes_nothing(damaged: Path) -> None:
    good = values(damaged)
    rng = np.random.default_rng(0)
    silent, told, unchanged = [], 0, 0
    for path in files(damaged):
        data = path.read_bytes()
        small = path.name in ("zarr.json", "manifest.json", "SHA256SUMS")
        for position in rng.integers(0, 8 * len(data), 8 if small else 2):
            flipped = bytearray(data)
            flipped[position // 8] ^= 1 << (position % 8)
            path.write_bytes(flipped)
            try:
                if same(values(damaged), good):
                    unchanged += 1
                else:
                    silent.append((path.relative_to(damaged), int(position)))
            except OutputError:
                told += 1
        path.write_bytes(data)
    assert not silent
    assert told > 50 > unchanged  # white space of the manifest is all that may change


def test_every_byte_of_the_cameras_is_checked(damaged: Path) -> None:
    good = values(damaged)
    for name in ("c2w", "intrinsics", "times_s", "source_frames", "scene", "reliable"):
        (chunk,) = (path for path in (damaged / ARRAYS / name).iterdir() if path.name != "zarr.json")
        data = chunk.read_bytes()
        for position in range(0, len(data), 1 + len(data) // 16):
            chunk.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
            with pytest.raises(OutputError, match=f"{name}.*is damaged"):
                load_result(damaged)
        chunk.write_bytes(data)
    assert same(values(damaged), good)


def test_swapped_files_are_found(damaged: Path) -> None:
    chunks = [path for path in files(damaged / ARRAYS) if path.name != "zarr.json"]
    pairs = [(a, b) for a, b in itertools.combinations(chunks, 2) if a.read_bytes() != b.read_bytes()]
    frames = [(a, b) for a, b in pairs if a.parent == b.parent]
    arrays = [(a, b) for a, b in pairs if a.name == b.name and a.parent != b.parent]
    metadata = list(itertools.pairwise(sorted((damaged / ARRAYS).glob("*/zarr.json"))))
    assert len(frames) > 20
    assert len(arrays) > 10
    for a, b in [*frames[::4], *arrays[::2], *metadata]:
        kept = a.read_bytes(), b.read_bytes()
        a.write_bytes(kept[1])
        b.write_bytes(kept[0])
        with pytest.raises(OutputError, match="damaged"):
            values(damaged)
        a.write_bytes(kept[0])
        b.write_bytes(kept[1])


def test_files_cut_taken_and_added_are_found(damaged: Path) -> None:
    for number, path in enumerate(files(damaged)):
        data = path.read_bytes()
        path.write_bytes(data[: (0, len(data) // 2, len(data) - 2)[number % 3]])
        with pytest.raises(OutputError):
            values(damaged)
        path.unlink()
        with pytest.raises(OutputError, match=r"missing|not a geo4d result"):
            values(damaged)
        path.write_bytes(data)
    opened = load_result(damaged)
    (damaged / ARRAYS / "depth" / "c.2.0.0").unlink()
    with pytest.raises(OutputError, match=r"c\.2\.0\.0 is missing"):  # and not a frame of fill values
        opened.depth[2]


def test_format_1_has_sums_of_maps_only_but_never_fill_values(tmp_path: Path) -> None:
    old = Path(shutil.copytree(RESULTS / "1", tmp_path / "r"))
    chunk = old / ARRAYS / "depth" / "c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    chunk.write_bytes(data)
    opened = load_result(old)
    with pytest.raises(OutputError, match="damaged"):
        opened.depth[1]
    (old / ARRAYS / "depth" / "c.2.0.0").unlink()
    with pytest.raises(OutputError, match="missing"):
        opened.depth[2]
    with pytest.raises(OutputError, match="1 of 6 pieces of depth are missing"):
        load_result(old)


def test_a_wrong_index_is_still_an_index_error() -> None:
    with pytest.raises(IndexError):
        load_result(RESULTS / "2").depth[6]
