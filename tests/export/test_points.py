import dataclasses

import numpy as np
import pytest
import torch

from geo4d.errors import GeometryError
from geo4d.export import ExportConfig, save
from geo4d.formats.glb import load_glb
from geo4d.formats.points import load_ply
from geo4d.geometry.cameras import project
from geo4d.geometry.poses import inverse, transform
from tests.readers_of_targets import colmap, gltf, nerfstudio, ply

KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)


def test_ply_points_reproject_onto_their_pixels(tmp_path, scene) -> None:
    save(scene, tmp_path / "all.ply", "ply", KEEP_ALL)
    cloud = load_ply(tmp_path / "all.ply")
    for frame in range(4):
        valid = np.isfinite(scene.depth[frame])
        points = cloud.positions[cloud.frames == frame]
        np.testing.assert_allclose(points, scene.points("world")[frame][valid], rtol=1e-5)
        camera = transform(inverse(torch.from_numpy(scene.c2w[frame])), torch.from_numpy(points).double())
        pixels, _ = project(camera, torch.from_numpy(scene.intrinsics[frame]))
        rows, columns = np.nonzero(valid)
        assert np.abs(pixels.numpy() - np.stack([columns + 0.5, rows + 0.5], 1)).max() < 0.01
    header = (tmp_path / "all.ply").read_bytes()[:2000]
    assert b"up to scale" in header
    assert b"3:13:0.12" in header


def test_filters_leave_out_points(tmp_path, scene) -> None:
    def count(name: str, config: ExportConfig) -> int:
        save(scene, tmp_path / name, "ply", config)
        return load_ply(tmp_path / name).num_points

    everything = count("a.ply", KEEP_ALL)
    assert everything == np.isfinite(scene.depth).sum()
    assert (
        count("b.ply", dataclasses.replace(KEEP_ALL, min_confidence=0.5)) == (scene.confidence >= 0.5).sum()
    )
    assert count("c.ply", dataclasses.replace(KEEP_ALL, edge_step=0.02)) < everything
    assert count("d.ply", dataclasses.replace(KEEP_ALL, voxel_size=0.3)) < everything / 5


def test_merged_clouds_are_thinned_and_say_so(tmp_path, scene, caplog) -> None:
    few = dataclasses.replace(KEEP_ALL, max_points=100)
    save(scene, tmp_path / "few.ply", "ply", few)
    assert "--max-points 0" in caplog.text
    assert caplog.text.count("thinned") == 1
    cloud = load_ply(tmp_path / "few.ply")
    assert cloud.num_points == 100
    assert np.bincount(cloud.frames).tolist() == [25] * 4
    save(scene, tmp_path / "few.glb", "glb", few)
    assert load_glb(tmp_path / "few.glb").num_points == 100
    save(scene, tmp_path / "all.ply", "ply", dataclasses.replace(KEEP_ALL, max_points=0))
    assert load_ply(tmp_path / "all.ply").num_points == np.isfinite(scene.depth).sum()
    save(scene, tmp_path / "single", "ply", few)  # a file per frame is never thinned
    assert load_ply(tmp_path / "single/points_000000.ply").num_points == np.isfinite(scene.depth[0]).sum()
    with pytest.raises(ValueError, match="max_points"):
        ExportConfig(max_points=-1)


@pytest.mark.parametrize("up", ["camera", "y", "z"])
def test_ply_axes(tmp_path, filmed, up) -> None:
    save(filmed, tmp_path / "a.ply", "ply", dataclasses.replace(KEEP_ALL, up=up))
    save(filmed, tmp_path / "a.glb", "glb", KEEP_ALL)
    fields = ply.load(tmp_path / "a.ply")
    points = np.stack([fields[name] for name in "xyz"], axis=1)
    glb = gltf.load(tmp_path / "a.glb")[1][0].points
    valid = np.isfinite(filmed.depth)
    ours = np.concatenate([filmed.points("world")[t][valid[t]] for t in range(4)])
    expected = {"camera": ours, "y": glb, "z": gltf.in_blender(glb)}[up]
    np.testing.assert_allclose(points, expected, atol=1e-6)
    (line,) = [line for line in ply.comments(tmp_path / "a.ply") if line.startswith("axes of the points")]
    assert {"camera": "+y down", "y": "+y up", "z": "+z up"}[up] in line
    if up != "y":  # glTF says itself which axes a file has
        with pytest.raises(ValueError, match="axes are fixed"):
            save(filmed, tmp_path / "b.glb", "glb", ExportConfig(up=up))


@pytest.mark.parametrize("name", ["ply", "glb"])
@pytest.mark.parametrize("folder", [False, True])
def test_filters_that_leave_nothing_name_the_option(tmp_path, filmed, name, folder) -> None:
    target = tmp_path / ("out" if folder else f"out.{name}")
    with pytest.raises(
        ValueError, match=r"no point is left .* --min-confidence 0.9 .*most confident one has 0.1"
    ):
        save(filmed, target, name, ExportConfig(min_confidence=0.9))
    nothing = dataclasses.replace(filmed, depth=np.full_like(filmed.depth, np.nan))
    with pytest.raises(GeometryError, match="none of the 4 chosen ones"):
        save(nothing, target, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ply", "glb", "colmap", "nerfstudio"])
def test_share_that_is_kept_is_said(tmp_path, filmed, name, caplog) -> None:
    suffix = {"ply": ".ply", "glb": ".glb"}.get(name, "")
    caplog.set_level("INFO", logger="geo4d.export")
    save(filmed, tmp_path / f"a{suffix}", name, ExportConfig(edge_step=0))
    assert "of the pixels with depth" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    save(filmed, tmp_path / f"b{suffix}", name, ExportConfig(min_confidence=0.1, edge_step=0))
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("only points from")
    assert "below --min-confidence 0.1" in warning


@pytest.mark.parametrize("name", ["colmap", "nerfstudio"])
def test_cameras_are_exported_without_any_point(tmp_path, filmed, name, caplog) -> None:
    save(filmed, tmp_path / "out", name, ExportConfig(min_confidence=0.9))
    assert "no points" in caplog.text
    if name == "colmap":
        assert colmap.load(tmp_path / "out").num_points3D() == 0
    else:
        assert nerfstudio.load(tmp_path / "out").points is None


def test_frames_without_points_are_named(tmp_path, filmed, caplog) -> None:
    confidence = filmed.confidence.copy()
    confidence[2] = 0
    some = dataclasses.replace(filmed, confidence=confidence)
    save(some, tmp_path / "out", "glb")
    save(some, tmp_path / "out.glb", "glb", ExportConfig(per_frame=True))
    assert "1 of 4 frames have no points: 2" in caplog.text
    assert len(gltf.load(tmp_path / "out/points_000002.glb")[1][0].points) == 0
    assert [len(node.points) > 0 for node in gltf.load(tmp_path / "out.glb")[1]] == [True, True, False, True]
