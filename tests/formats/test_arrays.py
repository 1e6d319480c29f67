import errno
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo4d.errors import InputError, OutputError
from geo4d.formats.arrays import create_frames, load_arrays, load_npz, npz_shapes, save_arrays, save_npz


def test_npz_round_trip_and_refusal_of_objects(tmp_path, rng):
    arrays = {"depth": rng.standard_normal((3, 4)), "valid": np.ones(2, bool)}
    save_npz(tmp_path / "a.npz", arrays)
    back = load_npz(tmp_path / "a.npz")
    assert all(np.array_equal(arrays[name], back[name]) for name in arrays)
    np.savez(tmp_path / "evil.npz", thing=np.array([{"a": 1}], object))
    with pytest.raises(InputError, match="plain arrays"):
        load_npz(tmp_path / "evil.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(InputError):
        load_npz(tmp_path / "text.npz")
    with pytest.raises(InputError, match="found nothing"):
        load_npz(tmp_path / "missing.npz")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_arrays_round_trip_exactly(tmp_path, rng, dtype):
    arrays = {"a": (rng.standard_normal((3, 5, 2)) * 50).astype(dtype), "scalar": np.array(3, dtype)}
    size = save_arrays(tmp_path / "a.zarr.zip", arrays, {"seed": 3, "name": "x"})
    back, attributes = load_arrays(tmp_path / "a.zarr.zip")
    assert size == (tmp_path / "a.zarr.zip").stat().st_size
    assert attributes == {"seed": 3, "name": "x"}
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)


def test_what_keeps_a_file_from_being_opened_is_said(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.storage.ZipStore, "_sync_open", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        save_arrays(tmp_path / "a.zarr.zip", {"a": np.ones(3)}, {})
    assert list(tmp_path.iterdir()) == []


def test_damaged_arrays_are_an_error(tmp_path, rng):
    path = tmp_path / "a.zarr.zip"
    save_arrays(path, {"a": rng.standard_normal((50, 50))}, {})
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:500] + b"\0" * 64 + whole[564:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            load_arrays(path)


def test_frames_have_a_chunk_each_and_find_flipped_bits(tmp_path, rng):
    group = zarr.open_group(tmp_path / "g", mode="w", zarr_format=3)
    frames = create_frames(group, "depth", (3, 8, 8), np.float32, np.nan)
    for t in range(3):
        frames[t] = rng.standard_normal((8, 8)) if t else np.nan
    assert frames.nchunks_initialized == 3
    chunk = tmp_path / "g" / "depth" / "c.2.0.0"
    data = bytearray(chunk.read_bytes())
    data[-10] ^= 1
    chunk.write_bytes(data)
    again = zarr.open_group(tmp_path / "g", mode="r")["depth"]
    assert np.isfinite(again[1]).all()
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        again[2]


def test_one_flipped_bit_anywhere_in_a_file_of_arrays_is_an_error(tmp_path, rng):
    path = tmp_path / "a.zarr.zip"
    save_arrays(path, {"a": rng.standard_normal(5), "b": np.zeros(3, np.int64)}, {"seed": 3})
    whole = path.read_bytes()
    for position in range(0, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        with pytest.raises(InputError, match="damaged"):
            load_arrays(path)
    for other in (whole + b"\0", whole[:-1], whole[:-64]):
        path.write_bytes(other)
        with pytest.raises(InputError, match="damaged"):
            load_arrays(path)


def test_a_file_of_arrays_under_the_name_of_another_is_an_error(tmp_path):
    save_arrays(tmp_path / "a.zarr.zip", {"a": np.arange(3)}, {})
    save_arrays(tmp_path / "b.zarr.zip", {"a": np.arange(3) + 1}, {})
    (tmp_path / "b.zarr.zip").replace(tmp_path / "a.zarr.zip")
    with pytest.raises(InputError, match="not the file that was written under this name"):
        load_arrays(tmp_path / "a.zarr.zip")


def test_a_file_of_arrays_is_a_zip_for_everyone(tmp_path):
    save_arrays(tmp_path / "a.zarr.zip", {"a": np.arange(3)}, {"seed": 3})
    with zipfile.ZipFile(tmp_path / "a.zarr.zip") as archive:
        assert archive.testzip() is None
        assert "a/zarr.json" in archive.namelist()
    with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="r") as store:
        assert zarr.open_group(store, mode="r")["a"][:].tolist() == [0, 1, 2]


def member(shape, descr="<f4", data=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def write_npz(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def peak(path, *arguments, **options):
    tracemalloc.start()
    with pytest.raises(InputError) as raised:
        load_npz(path, *arguments, **options)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 20e6
    return str(raised.value)


def test_what_an_npz_says_is_checked_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, {"depth.npy": member((10**6, 10**6))})
    assert "does not fit its" in peak(path)
    write_npz(path, {"depth.npy": member((-1, 4))})
    assert "does not fit its" in peak(path)
    write_npz(path, {"depth.npy": member((10**30,), "<U1000000")})
    assert "not a readable npz" in peak(path)
    write_npz(path, {"depth.npy": member((25, 2**20), data=bytes(100 * 2**20))})  # 100 kB on disk
    assert path.stat().st_size < 200_000
    assert "more than the 1000000" in peak(path, most_bytes=1_000_000)
    write_npz(
        path,
        {
            "depth.npy": member((2, 2), data=bytes(16)),
            "zzz.npy": member((25, 2**20), data=bytes(100 * 2**20)),
        },
    )
    assert npz_shapes(path) == {"depth": (2, 2), "zzz": (25, 2**20)}
    tracemalloc.start()
    assert list(load_npz(path, {"depth", "other"})) == ["depth"]  # what nobody asked for is not unpacked
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_damaged_deflate_is_an_error(tmp_path, rng):
    path = tmp_path / "a.npz"
    arrays = {"depth": np.ones((24, 12, 16), np.float32), "c2w": rng.standard_normal((24, 4, 4))}
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    told = 0
    for start in range(40, len(whole) - 40, 37):
        path.write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
        try:
            assert all(np.array_equal(values, arrays[name]) for name, values in load_npz(path).items())
        except InputError:
            told += 1
    assert told > 0.9 * (len(whole) - 80) / 37
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        npz_shapes(path)


@given(position=st.integers(0, 10_000), data=st.binary(min_size=1, max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_anywhere_in_an_npz(tmp_path, position, data):
    path = tmp_path / "a.npz"
    arrays = {"depth": np.arange(96, dtype=np.float32).reshape(2, 6, 8), "frames": np.arange(2)}
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    position %= len(whole)
    path.write_bytes(whole[:position] + data + whole[position + len(data) :])
    try:
        back = load_npz(path)
    except InputError:
        return
    assert all(np.array_equal(back[name], arrays[name]) for name in back if name in arrays)
