import errno
import json

import numpy as np
import pytest
import torch
import zarr

from geo4d.errors import OutputError
from geo4d.results.layout import frame_bytes
from geo4d.results.manifest import ARRAYS, MANIFEST, is_result
from geo4d.results.reader import load_result
from geo4d.results.writer import StoreWriter
from geo4d.types import FrameMaps
from tests.support.stored import MANIFEST_REST, frame, run_once, write_result


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0), ("float16", 5e-4)])
def test_what_is_written_comes_back(tmp_path, precision, tolerance):
    result = load_result(write_result(tmp_path / "r", precision=precision))
    depth = result.depth[1]
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, frame(1).depth.numpy(), rtol=tolerance)
    assert np.isnan(depth[0, 0])
    assert np.isposinf(depth[0, 1])
    assert result.size == (6, 8)
    assert result.depth[:, 2, 3].shape == (3,)
    assert result.disparity[0][0, 1] == 0
    assert float(result.rgb[2][0, 0, 0]) == pytest.approx(20 / 255)
    assert float(result.dynamic[0][0, 0]) == 0.5
    assert result.has_poses
    assert result.diagnostics["worst"] is None
    assert not load_result(write_result(tmp_path / "n", with_poses=False)).has_poses


def test_it_is_plain_zarr_with_a_readable_manifest(tmp_path):
    folder = write_result(tmp_path / "r")
    group = zarr.open_group(folder / ARRAYS, mode="r")
    assert group["depth"].chunks == (1, 6, 8)
    assert "sky" in group["depth"].attrs["meaning"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["num_frames"] == 3
    assert manifest["size"] == {"height": 6, "width": 8}
    assert "OpenCV" not in manifest["arrays"]["depth"]
    assert set(manifest["arrays"]) >= {"depth", "confidence", "dynamic", "c2w", "intrinsics", "times_s"}
    size = sum(path.stat().st_size for path in (folder / ARRAYS / "depth").iterdir())
    assert size <= 3 * frame_bytes((6, 8), "float32")


def test_depth_beyond_half_precision_does_not_become_sky(tmp_path):
    writer = StoreWriter(tmp_path / "r", 1, (1, 2), "float16")
    writer.write(FrameMaps(0, torch.tensor([[1e6, torch.inf]]), torch.ones(1, 2)))
    stored = zarr.open_group(tmp_path / "r" / ARRAYS, mode="r")["depth"][0]
    assert stored[0, 0] == 65504
    assert np.isposinf(stored[0, 1])


def test_missing_frames_are_found_before_the_result_appears(tmp_path):
    writer = StoreWriter(tmp_path / "r", 3, (6, 8), "float32")
    writer.write(frame(0))
    with pytest.raises(OutputError, match="only 1 of 3 frames"):
        writer.finish({}, MANIFEST_REST, {})
    assert not is_result(tmp_path / "r")


def test_full_disk_is_one_message_and_leaves_no_half_result(tmp_path, monkeypatch):
    run_once(tmp_path / "out")
    real = StoreWriter.write

    def full(self, maps, rgb=None):
        if maps.frame_index == 1:
            monkeypatch.setattr("zarr.storage.LocalStore.set", no_space)
        real(self, maps, rgb)

    async def no_space(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StoreWriter, "write", full)
    with pytest.raises(OutputError, match="disk is full"):
        run_once(tmp_path / "out", overwrite=True)
    monkeypatch.undo()
    assert load_result(tmp_path / "out").num_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
