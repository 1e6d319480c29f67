import numpy as np
import pytest
import zarr

from geo4d.errors import InputError
from geo4d.formats.arrays import create_frames, load_arrays, load_npz, save_arrays, save_npz


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
