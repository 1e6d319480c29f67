import hashlib
import subprocess

import numpy as np
import pytest

from geo4d.errors import OutputError
from geo4d.formats.checksums import ChecksummedStore, Checksums


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def test_sums_of_frames_and_of_other_files() -> None:
    sums = Checksums()
    names = ["depth/c.5.0.0", "depth/c.0.0.0", "depth/zarr.json", "zarr.json", "rgb/c.5.0.0.0", "times/c.0"]
    for name in names:
        sums[name] = digest(name)
    assert all(sums.get(name) == digest(name) for name in names)
    assert sums.get("depth/c.3.0.0") is None  # between frames that are known
    assert sums.get("depth/c.9.0.0") is None
    assert sums.get("other") is None
    assert sorted(sums) == sorted(names)


def test_a_sum_is_replaced_by_a_newer_one() -> None:
    sums = Checksums()
    for text in ("old", "new"):
        sums["depth/c.2.0.0"] = digest(text)
        sums["a"] = digest(text)
    assert sums.get("depth/c.2.0.0") == sums.get("a") == digest("new")
    assert len(list(sums)) == 2


def test_the_text_is_that_of_sha256sum(tmp_path) -> None:
    sums = Checksums()
    for name in ("a.txt", "depth/c.0.0.0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        sums[name] = digest(name)
    (tmp_path / "SUMS").write_text(sums.text())
    checked = subprocess.run(["sha256sum", "--check", "SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    (tmp_path / "a.txt").write_text("b.txt")
    assert subprocess.run(["sha256sum", "--check", "SUMS"], cwd=tmp_path, capture_output=True).returncode != 0
    back = Checksums.parse(sums.text(), 1)
    assert back.text() == sums.text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 1"),
        ("0" * 63 + "  a", "line 1"),
        ("0" * 64 + " a", "line 1"),
        ("g" * 64 + "  a", "line 1"),
        ("0" * 64 + "  depth/c.4.0.0", "beyond the 4"),
        ("0" * 64 + "  depth/c.9999999999999999.0.0", "beyond the 4"),
    ],
)
def test_lists_that_would_take_all_memory_or_are_none(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Checksums.parse(line, 4)


@pytest.fixture
def written(tmp_path):
    """An array of three frames, and the sums of its files."""
    import zarr
    from zarr.storage import LocalStore

    sums = Checksums()
    store = ChecksummedStore(LocalStore(tmp_path), sums, "maps/")
    group = zarr.create_group(store)
    array = group.create_array("depth", shape=(3, 2, 2), chunks=(1, 2, 2), dtype="f4")
    array[:] = np.arange(12).reshape(3, 2, 2)
    return tmp_path, sums


def read(folder, sums, **sizes):
    import zarr
    from zarr.storage import LocalStore

    store = ChecksummedStore(LocalStore(folder, read_only=True), sums, "maps/")
    store.chunk_bytes = sizes
    return zarr.open_group(store, mode="r")["depth"]


def chunk(folder, frame: int):
    return next(
        path for path in folder.rglob("*") if path.is_file() and f"c/{frame}/" in path.as_posix() + "/"
    )


def test_every_file_is_summed_when_it_is_written_and_reads_back(written) -> None:
    folder, sums = written
    files = {f"maps/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}
    assert set(sums) == files
    np.testing.assert_array_equal(read(folder, sums)[:], np.arange(12).reshape(3, 2, 2))


def test_a_flipped_bit_and_a_swapped_file_are_found(written) -> None:
    folder, sums = written
    first, second = chunk(folder, 0), chunk(folder, 1)
    good = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(OutputError, match="damaged: its SHA-256"):
        read(folder, sums)[0]
    first.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(OutputError, match="damaged"):
        read(folder, sums)[0]
    first.write_bytes(good)
    read(folder, sums)[0]


def test_a_missing_chunk_is_an_error_and_no_zeros(written) -> None:
    folder, sums = written
    chunk(folder, 2).unlink()
    with pytest.raises(OutputError, match="is missing"):
        read(folder, sums)[2]
    with pytest.raises(OutputError, match="is missing"):  # also of a result that has no sums
        read(folder, None, depth=16)[2]


def test_a_file_that_nobody_listed_is_foreign(written) -> None:
    folder, sums = written
    fewer = Checksums()
    for name in sums:
        if "/c" not in name.removeprefix("maps/depth"):
            fewer[name] = sums.get(name)
    with pytest.raises(OutputError, match="not in its list"):
        read(folder, fewer)[0]
