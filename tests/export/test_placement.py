"""Scale, reference length and up are the same for every format, and stated by every one."""

import dataclasses
import json

import numpy as np
import pytest

from geo4d.export import ExportConfig, Reference, save
from tests.readers_of_targets import exr, first_camera, gltf, nerfstudio, nuke, ply

KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)
TURN = {"camera": np.eye(3), "y": np.diag([1.0, -1, -1]), "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
ENDINGS = {"npz": ".npz", "ply": ".ply", "tum": ".txt", "kitti": ".txt"}


@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize("name", ["npz", "exr", "tum", "kitti", "colmap", "nerfstudio"])
def test_cameras_are_turned(tmp_path, shot, name, up) -> None:
    path = tmp_path / f"a{ENDINGS.get(name, '')}"
    save(shot(), path, name, dataclasses.replace(KEEP_ALL, up=up, scale=2.5))
    first = first_camera.first_c2w(path, name)
    np.testing.assert_allclose(first[:3, :3], TURN[up], atol=1e-6)  # the first camera is the world, turned


@pytest.mark.parametrize("name", ["npz", "tum", "kitti"])
def test_cameras_are_scaled(tmp_path, shot, name) -> None:
    result = shot()
    save(
        result, tmp_path / f"a{ENDINGS[name]}", name, dataclasses.replace(KEEP_ALL, scale=2.5, frames=(3, 2))
    )
    c2w = first_camera.first_c2w(tmp_path / f"a{ENDINGS[name]}", name)
    np.testing.assert_allclose(c2w[:3, 3], 2.5 * result.c2w[3, :3, 3], atol=1e-6)


def test_depth_and_points_are_scaled(tmp_path, shot) -> None:
    result = shot()
    scaled = dataclasses.replace(KEEP_ALL, scale=2.5)
    valid = np.isfinite(result.depth)
    save(result, tmp_path / "a.npz", "npz", scaled)
    with np.load(tmp_path / "a.npz") as data:
        np.testing.assert_allclose(data["depth"][valid], 2.5 * result.depth[valid], rtol=1e-6)
        assert np.isposinf(data["depth"][0, 0, 4])
        assert "times 2.5" in json.loads(str(data["conventions"]))["scale"]
    save(result, tmp_path / "exr", "exr", scaled)
    channels, header = exr.load(tmp_path / "exr/depth_000001.exr")
    np.testing.assert_allclose(channels["Z"][valid[1]], 2.5 * result.depth[1][valid[1]], rtol=1e-6)
    assert "times 2.5" in header["geo4d_scale"]
    ours = np.concatenate([result.points("world")[t][valid[t]] for t in range(4)])
    save(result, tmp_path / "a.ply", "ply", scaled)
    fields = ply.load(tmp_path / "a.ply")
    np.testing.assert_allclose(np.stack([fields[n] for n in "xyz"], axis=1), 2.5 * ours, rtol=1e-5, atol=1e-6)
    assert any("times 2.5" in line for line in ply.comments(tmp_path / "a.ply"))
    save(result, tmp_path / "a.glb", "glb", scaled)
    document, (node,) = gltf.load(tmp_path / "a.glb")
    np.testing.assert_allclose(node.points, 2.5 * ours * [1, -1, -1], rtol=1e-5, atol=1e-6)
    assert "times 2.5" in document["scenes"][0]["extras"]["scale"]
    save(result, tmp_path / "png", "png", scaled)
    notes = json.loads((tmp_path / "png/depth.json").read_text())
    assert notes["depth_step"] * 65534 == pytest.approx(2.5 * result.depth[valid].max(), rel=1e-6)
    save(result, tmp_path / "ns", "nerfstudio", scaled)
    scene = nerfstudio.load(tmp_path / "ns")
    factor = 2.5 * scene.meta["geo4d"]["scale_factor"]
    np.testing.assert_allclose(scene.saved_c2w[3, :3, 3], factor * result.c2w[3, :3, 3], rtol=1e-6, atol=1e-9)
    save(result, tmp_path / "a.nk", "nuke", scaled)
    camera = nuke.load_script(tmp_path / "a.nk")[-1]
    np.testing.assert_allclose(camera.at("translate", 4), 2.5 * result.c2w[3, :3, 3] * [1, -1, -1], rtol=1e-8)


def test_a_reference_length_makes_metres(tmp_path, shot) -> None:
    result = shot()
    reference = Reference.parse("10.2,20.9,50.7,5.1,1,3")
    save(result, tmp_path / "a.npz", "npz", dataclasses.replace(KEEP_ALL, reference=reference))
    with np.load(tmp_path / "a.npz") as data:
        assert str(data["scale_kind"]) == "metric"
        words = json.loads(str(data["conventions"]))
        depth, K = data["depth"][1].astype(float), data["intrinsics"][1]
    assert words["unit"] == "metres"
    assert words["reference"] == "pixels 10.2,20.9 and 50.7,5.1 of frame 1 are 3 m apart"
    ends = []
    for x, y in ((10.2, 20.9), (50.7, 5.1)):
        z = depth[int(y), int(x)]
        ends.append([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z])
    assert np.linalg.norm(np.subtract(*ends)) == pytest.approx(3, rel=1e-6)
    assert result.scale_kind == "scale"  # what is stored stays as it is


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2,3", "x1,y1,x2,y2,FRAME,METRES"),
        ("1,2,a,4,0,1", "x1,y1,x2,y2,FRAME,METRES"),
        ("10,10,20,20,0,0", "length > 0"),
        ("10,10,20,20,9,1", r"frame in \[0, 3\]"),
        ("10,10,64,20,0,1", "within 64x36"),
        ("0.5,0.5,20,20,0,1", "no depth at pixel 0.5,0.5 of frame 0"),
        ("10,10,10,10,0,1", "two points"),
    ],
)
def test_references_that_cannot_be_measured(tmp_path, shot, text, says) -> None:
    with pytest.raises(ValueError, match=says):
        save(shot(), tmp_path / "a.npz", "npz", ExportConfig(reference=Reference.parse(text)))
    assert list(tmp_path.iterdir()) == []


def test_a_reference_holds_for_its_scene_alone(tmp_path, shot) -> None:
    cut = dataclasses.replace(shot(), scene=np.array([0, 0, 1, 1]))
    config = ExportConfig(reference=Reference((10, 20), (50, 5), 1, 3.0))
    with pytest.raises(ValueError, match="pass --scene"):
        save(cut, tmp_path / "a.npz", "npz", config)
    save(cut, tmp_path / "a.npz", "npz", dataclasses.replace(config, scene=0))


def test_units_of_metric_results_and_options_that_exclude_each_other(tmp_path, shot) -> None:
    metric = dataclasses.replace(shot(), scale_kind="metric")
    save(metric, tmp_path / "a.npz", "npz", ExportConfig(scale=100))
    with np.load(tmp_path / "a.npz") as data:
        assert str(data["scale_kind"]) == "scale"
        assert json.loads(str(data["conventions"]))["unit"] == "0.01 metres"
    with pytest.raises(ValueError, match="got both"):
        ExportConfig(scale=2, reference=Reference((1, 1), (2, 2), 0, 1.0))
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale > 0"):
            ExportConfig(scale=scale)


@pytest.mark.parametrize(("name", "up"), [("glb", "z"), ("glb", "camera"), ("usd", "camera"), ("nuke", "z")])
def test_axes_that_a_format_cannot_have(tmp_path, shot, name, up) -> None:
    with pytest.raises(ValueError, match="axes are fixed"):
        save(shot(), tmp_path / "a", name, ExportConfig(up=up))


def test_points_without_poses_are_turned_too(tmp_path, shot) -> None:
    bare = dataclasses.replace(shot(), c2w=None)
    save(bare, tmp_path / "a.ply", "ply", dataclasses.replace(KEEP_ALL, frames=(1,), up="z"))
    fields = ply.load(tmp_path / "a.ply")
    camera = bare.points("camera")[1][np.isfinite(bare.depth[1])]
    np.testing.assert_allclose(np.stack([fields[n] for n in "xyz"], axis=1), camera @ TURN["z"].T, atol=1e-6)
