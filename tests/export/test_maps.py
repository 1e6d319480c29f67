import dataclasses
import json

import numpy as np
import pytest

from geo4d.export import ExportConfig, save
from geo4d.formats.images import load_exr, load_png16
from tests.readers_of_targets import exr, gltf


def test_npz(tmp_path, scene) -> None:
    (path,) = save(scene, tmp_path / "a.npz", "npz", ExportConfig(frames=(1, 3)))
    with np.load(path) as data:
        np.testing.assert_array_equal(data["depth"], scene.depth[[1, 3]])
        np.testing.assert_allclose(data["c2w"], scene.c2w[[1, 3]], atol=1e-12)
        assert data["source_frames"].tolist() == [11, 13]
        assert "OpenCV" in json.loads(str(data["conventions"]))["camera_axes"]
    (path,) = save(scene, tmp_path / "folder", "npz", ExportConfig(precision="half"))
    with np.load(path) as data:
        np.testing.assert_allclose(data["depth"], scene.depth, rtol=1e-3)


@pytest.mark.parametrize(("precision", "tolerance"), [("float", 1e-6), ("half", 1e-3)])
def test_exr(tmp_path, scene, precision, tolerance) -> None:
    import OpenEXR

    save(scene, tmp_path / "exr", "exr", ExportConfig(precision=precision))
    channels = load_exr(tmp_path / "exr/depth_000002.exr")
    np.testing.assert_allclose(channels["Z"], scene.depth[2], rtol=tolerance)
    points = np.stack([channels[f"position.{axis}"] for axis in "XYZ"], -1)
    np.testing.assert_allclose(points, scene.points("world")[2], rtol=tolerance, atol=tolerance)
    header = OpenEXR.File(str(tmp_path / "exr/depth_000002.exr")).header()
    assert header["geo4d_source_frame"] == 12
    assert "up to scale" in header["geo4d_unit"]
    assert (tmp_path / "exr/README.txt").read_text().count("OpenCV") == 1
    with pytest.raises(ValueError, match="one frame"):
        save(scene, tmp_path / "one.exr", "exr")


def test_png_is_within_half_a_step(tmp_path, scene) -> None:
    save(scene, tmp_path / "png", "png")
    step = json.loads((tmp_path / "png/depth.json").read_text())["depth_step"]
    values = load_png16(tmp_path / "png/depth_000001.png")
    valid = np.isfinite(scene.depth[1])
    assert np.abs(values * step - scene.depth[1])[valid].max() <= 0.5 * step * (1 + 1e-6)
    assert (values[np.isnan(scene.depth[1])] == 0).all()
    assert (values[np.isposinf(scene.depth[1])] == 65535).all()
    one, sidecar = save(scene, tmp_path / "one.png", "png", ExportConfig(frames=(0,)))
    assert one.exists()
    assert json.loads(sidecar.read_text())["frames"][0]["source_frame"] == 10


def test_exr_names_are_those_of_blender_and_nuke(tmp_path, filmed) -> None:
    save(filmed, tmp_path / "one.exr", "exr", ExportConfig(frames=(1,)))
    channels, header = exr.load(tmp_path / "one.exr")
    assert exr.blender_passes(list(channels)) == {
        "Combined": "BGR",
        "Depth": "Z",
        "moving": "V",
        "confidence": "V",
        "position": "XYZ",
    }
    nuke = exr.nuke_channels(list(channels))
    for name in ("rgba.red", "rgba.green", "rgba.blue", "depth.Z", "moving.V", "confidence.V", "position.X"):
        assert name in nuke
    np.testing.assert_array_equal(channels["moving.V"], filmed.dynamic[1])
    shown = gltf.linear_to_srgb_bytes(np.stack([channels[name] for name in "RGB"], axis=-1).astype(float))
    np.testing.assert_allclose(shown, np.round(255 * filmed.rgb[1]), atol=1)
    assert "linear" in header["geo4d_channels"]
    bare = dataclasses.replace(filmed, rgb=None, dynamic=None, c2w=None)
    save(bare, tmp_path / "bare.exr", "exr", ExportConfig(frames=(1,)))
    assert set(exr.load(tmp_path / "bare.exr")[0]) == {"Z", "confidence.V"}
