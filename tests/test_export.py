import dataclasses
import json

import numpy as np
import pytest
import torch

from geo4d.apps.commands.export import parse_frames
from geo4d.errors import OutputError
from geo4d.export import FORMATS, ExportConfig, save
from geo4d.formats.cameras import load_colmap, load_kitti_poses, load_nerfstudio, load_tum
from geo4d.formats.images import load_exr, load_image, load_png16
from geo4d.formats.points import load_glb, load_ply
from geo4d.geometry.cameras import centred_intrinsics, project
from geo4d.geometry.poses import inverse, se3_exp, transform
from geo4d.types import Reconstruction

SIZE = (18, 25)
KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)


@pytest.fixture
def scene() -> Reconstruction:
    """A slanted wall seen by four slowly moving cameras, with sky and missing pixels."""
    generator = torch.Generator().manual_seed(1)
    rng = np.random.default_rng(1)
    depth = np.linspace(2, 3, SIZE[1], dtype=np.float32) * np.ones((4, *SIZE), np.float32)
    depth += 0.1 * rng.random(depth.shape).astype(np.float32)
    depth[:, 0, :5], depth[:, 0, 5:9] = np.nan, np.inf
    confidence = rng.random(depth.shape).astype(np.float32)
    c2w = se3_exp(0.02 * torch.randn(4, 6, generator=generator, dtype=torch.float64)).numpy()
    return Reconstruction(
        depth=depth,
        confidence=np.where(np.isfinite(depth), confidence, 0),
        intrinsics=centred_intrinsics(torch.full((4,), 30.0, dtype=torch.float64), SIZE).numpy(),
        times_s=np.array([0.0, 0.04, 0.09, 0.12]),
        source_frames=np.array([10, 11, 12, 13]),
        c2w=c2w,
        dynamic=np.zeros_like(depth),
        rgb=rng.random((*depth.shape, 3)).astype(np.float32),
        scene=np.zeros(4, int),
    )


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


def test_glb(tmp_path, scene) -> None:
    save(scene, tmp_path / "a.glb", "glb", dataclasses.replace(KEEP_ALL, frames=(2,)))
    valid = np.isfinite(scene.depth[2])
    np.testing.assert_allclose(load_glb(tmp_path / "a.glb").positions, scene.points()[2][valid], rtol=1e-5)
    save(scene, tmp_path / "frames", "glb")
    assert len(list((tmp_path / "frames").glob("*.glb"))) == 4


def test_trajectories(tmp_path, scene) -> None:
    save(scene, tmp_path / "t.txt", "tum")
    times, poses = load_tum(tmp_path / "t.txt")
    np.testing.assert_allclose(poses, scene.c2w, atol=1e-6)
    np.testing.assert_allclose(times, scene.times_s)
    path, sidecar = save(scene, tmp_path / "k", "kitti")
    np.testing.assert_allclose(load_kitti_poses(path), scene.c2w, atol=1e-6)
    assert json.loads(sidecar.read_text())["frames"][3]["time_s"] == 0.12


def test_colmap_loads_in_pycolmap_and_points_reproject(tmp_path, scene) -> None:
    import pycolmap

    save(scene, tmp_path / "colmap", "colmap", ExportConfig(points_per_frame=60))
    theirs = pycolmap.Reconstruction(str(tmp_path / "colmap/sparse/0"))
    assert theirs.num_images() == 4
    assert theirs.num_points3D() == 240
    worst = 0.0
    lengths = []
    for point in theirs.points3D.values():
        lengths.append(point.track.length())
        for element in point.track.elements:
            image = theirs.images[element.image_id]
            seen = image.points2D[element.point2D_idx]
            assert seen.point3D_id in theirs.points3D
            worst = max(worst, float(np.abs(image.project_point(point.xyz) - seen.xy).max()))
    assert worst < 0.01
    assert np.mean(lengths) > 2  # static wall: points are seen from several frames
    np.testing.assert_allclose(load_colmap(tmp_path / "colmap/sparse/0").c2w, scene.c2w, atol=1e-6)
    assert load_image(tmp_path / "colmap/images/frame_000000.png").shape == (*SIZE, 3)


def test_nerfstudio(tmp_path, scene) -> None:
    save(scene, tmp_path / "ns", "nerfstudio")
    model = load_nerfstudio(tmp_path / "ns")
    np.testing.assert_allclose(model.c2w, scene.c2w, atol=1e-6)
    depth = load_png16(tmp_path / "ns" / model.depth_files[1]) * model.depth_unit
    valid = np.isfinite(scene.depth[1])
    assert np.abs(depth - scene.depth[1])[valid].max() <= 0.51 * model.depth_unit
    assert all((tmp_path / "ns" / file).is_file() for file in model.files)


def test_preview_plays_and_uses_a_free_codec(tmp_path, scene) -> None:
    import av

    (path,) = save(scene, tmp_path / "p.mp4", "preview")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("vp9", "libdav1d", "av1", "libaom-av1")
        frames = list(container.decode(video=0))
    assert len(frames) == 4
    assert frames[0].width == 76
    assert frames[0].height == 18


@pytest.mark.parametrize("name", ["ply", "glb", "tum", "kitti", "colmap", "nerfstudio"])
def test_world_formats_need_poses_and_one_world(tmp_path, scene, name) -> None:
    suffix = {"ply": ".ply", "glb": ".glb"}.get(name, "")
    target = tmp_path / f"out{suffix}"
    with pytest.raises(ValueError, match="geo4d pose"):
        save(dataclasses.replace(scene, c2w=None), target, name)
    cut = dataclasses.replace(scene, scene=np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="--scene"):
        save(cut, target, name)
    assert not target.exists()
    save(cut, target, name, ExportConfig(scene=1))
    assert target.exists()


@pytest.mark.parametrize("name", ["exr", "png", "colmap", "nerfstudio"])
def test_existing_output_is_kept(tmp_path, scene, name) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        save(scene, tmp_path / "out", name)
    assert (tmp_path / "out/mine.txt").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_format_and_frames(tmp_path, scene) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        save(scene, tmp_path / "x", "obj")
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        save(scene, tmp_path / "x.npz", "npz", ExportConfig(frames=(7,)))
    assert parse_frames("1:4:2", 9) == (1, 3)
    assert parse_frames("-2:", 9) == (7, 8)
    assert parse_frames("3,1", 9) == (3, 1)
    with pytest.raises(ValueError, match="START:STOP"):
        parse_frames("a", 9)
    assert len(FORMATS) == 10
