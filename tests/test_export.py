import dataclasses
import json

import numpy as np
import pytest
import torch

from geo4d.apps.commands.export import parse_frames
from geo4d.errors import GeometryError, OutputError
from geo4d.export import FORMATS, ExportConfig, conventions, nerfstudio_scale, save
from geo4d.formats.cameras import load_colmap, load_kitti_poses, load_nerfstudio, load_tum
from geo4d.formats.images import load_exr, load_image, load_png16
from geo4d.formats.points import load_glb, load_ply
from geo4d.geometry.cameras import centred_intrinsics, project
from geo4d.geometry.poses import inverse, se3_exp, transform
from geo4d.types import Reconstruction
from tests.readers_of_targets import colmap, exr, first_camera, gltf, movie, nerfstudio, ply

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


@pytest.fixture
def filmed(scene) -> Reconstruction:
    """The wall without noise, with a moving patch, in the world of its first camera; confidences as a run has them."""
    c2w = np.linalg.inv(scene.c2w[0]) @ scene.c2w
    depth = np.empty_like(scene.depth)
    y, x = np.indices(SIZE) + 0.5
    for t in range(4):  # the wall 2.5 before the first camera, tilted: exact depth for every camera
        rays = np.stack([(x - 12.5) / 30, (y - 9) / 30, np.ones(SIZE)], axis=-1)
        normal, distance = np.array([-0.3, 0.1, 1.0]), 2.5
        world = rays @ c2w[t, :3, :3].T
        depth[t] = (distance - c2w[t, :3, 3] @ normal) / (world @ normal)
    dynamic = np.zeros_like(depth)
    dynamic[:, 6:10, 8:14] = 1.0
    depth[:, 6:10, 8:14] = 1.7
    depth[:, 0, :5], depth[:, 0, 5:9] = np.nan, np.inf
    confidence = np.where(np.isfinite(depth), 0.03 + 0.09 * scene.confidence, 0).astype(np.float32)
    return dataclasses.replace(scene, depth=depth, c2w=c2w, dynamic=dynamic, confidence=confidence)


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


@pytest.mark.parametrize("unit", [1e-3, 1.0, 400.0])
def test_nerfstudio_reads_depth_poses_and_points_in_one_unit(tmp_path, filmed, unit, caplog) -> None:
    c2w = filmed.c2w.copy()
    c2w[:, :3, 3] *= unit
    scaled = dataclasses.replace(filmed, depth=filmed.depth * np.float32(unit), c2w=c2w)
    save(scaled, tmp_path / "ns", "nerfstudio", ExportConfig(points_per_frame=60))
    scene = nerfstudio.load(tmp_path / "ns")
    factor = scene.meta["geo4d"]["scale_factor"]
    to_theirs = factor * scene.scale  # from the unit of the result to nerfstudio's
    np.testing.assert_allclose(scene.saved_c2w[:, :3, 3], factor * c2w[:, :3, 3], atol=1e-9 * factor * unit)
    valid = np.isfinite(scaled.depth)
    assert (scene.depth[~valid] == 0).all()
    expected = scaled.depth * to_theirs
    assert (
        np.abs(scene.depth / np.where(valid, expected, 1) - 1)[valid].max() < 2e-3
    )  # no flag given, right all the same
    assert scene.masks is not None
    np.testing.assert_array_equal(scene.masks, filmed.dynamic < 0.5)
    # Points lie on the depth that the cameras see, and none of them on what moves.
    assert scene.points is not None
    assert len(scene.points) == 240
    for frame in range(4):
        pixels, z = nerfstudio.project(scene, frame, scene.points)
        column, row = np.floor(pixels).astype(int).T
        inside = (column > 0) & (column < SIZE[1] - 1) & (row > 1) & (row < SIZE[0] - 1)
        inside[inside] &= scene.masks[frame][row[inside], column[inside]]
        assert inside.sum() > 100
        there = scene.depth[frame][row[inside], column[inside]]
        assert np.median(np.abs(there / z[inside] - 1)) < 5e-3
    assert not {"applied_transform", "applied_scale", "depth_unit_scale_factor"} & set(scene.meta)
    assert "scale" not in caplog.text
    model = load_nerfstudio(tmp_path / "ns")  # our own reader comes to the same
    np.testing.assert_allclose(model.c2w[:, :3, 3], factor * c2w[:, :3, 3], atol=1e-9 * factor * unit)
    assert model.depth_unit == 0.001


@pytest.mark.parametrize("seed", range(20))
def test_sixteen_bits_hold_any_depth(tmp_path, filmed, seed) -> None:
    """Rounding must not push the farthest pixel over the end: 65535.00000000001 did."""
    rng = np.random.default_rng(seed)
    depth = (filmed.depth * rng.uniform(0.01, 100)).astype(np.float32)
    one = dataclasses.replace(filmed, depth=depth)
    save(one, tmp_path / "ns", "nerfstudio", ExportConfig(frames=(0, 1)))
    save(one, tmp_path / "png", "png", ExportConfig(frames=(0, 1)))
    scale = nerfstudio_scale(one, [0, 1])
    far = depth[:2][np.isfinite(depth[:2])].max()
    assert 0.98 * 65535 < far * scale / 0.001 <= 65535
    assert (load_png16(tmp_path / "ns/depth/frame_000000.png") <= 65535).all()
    assert (load_png16(tmp_path / "png/depth_000000.png")[np.isfinite(depth[0])] < 65535).all()


def test_nerfstudio_metres_stay_metres_and_far_outliers_do_not_take_the_bits(
    tmp_path, filmed, caplog
) -> None:
    assert nerfstudio_scale(dataclasses.replace(filmed, scale_kind="metric"), range(4)) == 1.0
    far = dataclasses.replace(filmed, scale_kind="metric", depth=filmed.depth * 50)
    assert 0.3 < nerfstudio_scale(far, range(4)) < 0.6
    depth = filmed.depth.copy()
    depth[2, 17, 24] = 1e5
    save(dataclasses.replace(filmed, depth=depth), tmp_path / "ns", "nerfstudio")
    assert "left out" in caplog.text
    scene = nerfstudio.load(tmp_path / "ns")
    expected = depth * scene.meta["geo4d"]["scale_factor"] * scene.scale
    near = np.isfinite(depth) & (depth < 10)
    assert np.abs(scene.depth / np.where(near, expected, 1) - 1)[near].max() < 2e-3
    assert scene.depth[2, 17, 24] == 0


def test_nerfstudio_still_camera_and_no_masks(tmp_path, filmed, caplog) -> None:
    still = dataclasses.replace(filmed, c2w=np.tile(np.eye(4), (4, 1, 1)), dynamic=None)
    save(still, tmp_path / "ns", "nerfstudio")
    assert "--auto-scale-poses False" in caplog.text  # nerfstudio would divide by zero
    assert nerfstudio.load(tmp_path / "ns", auto_scale_poses=False).masks is None
    assert not (tmp_path / "ns/masks").exists()


def test_colmap_masks_and_points_leave_out_what_moves(tmp_path, filmed) -> None:
    save(filmed, tmp_path / "colmap", "colmap", ExportConfig(points_per_frame=60))
    model = colmap.load(tmp_path / "colmap")
    assert {image.name for image in model.images.values()} == {f"frame_{t:06d}.png" for t in range(4)}
    for number, image in enumerate(sorted(model.images.values(), key=lambda image: image.name)):
        mask = colmap.mask(tmp_path / "colmap", image.name)
        np.testing.assert_array_equal(mask, filmed.dynamic[number] < 0.5)
        np.testing.assert_allclose(colmap.world_from_camera(image), filmed.c2w[number], atol=1e-6)
    assert model.num_points3D() == 240
    normal = np.array([-0.3, 0.1, 1.0])
    for point in model.points3D.values():  # all on the wall, none on the patch before it
        assert abs(point.xyz @ normal - 2.5) < 1e-4
        assert point.track.length() >= 1
    save(dataclasses.replace(filmed, dynamic=None), tmp_path / "still", "colmap")
    assert not (tmp_path / "still/masks").exists()


@pytest.mark.parametrize("times", [[0.0, 0.016, 0.7, 0.716], [5.0, 5.04, 5.08, 5.12], [0.0, 1.0, 1.0, 1.5]])
def test_preview_shows_every_frame_at_its_time(tmp_path, scene, times) -> None:
    (path,) = save(dataclasses.replace(scene, times_s=np.array(times)), tmp_path / "p.mp4", "preview")
    shown, duration, pictures = movie.load(path)
    steps = np.diff(times)
    usual = np.median(steps[steps > 0])
    expected = np.cumsum([0, *np.where(steps > 0, steps, usual)])
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    assert duration == pytest.approx(expected[-1] + usual, abs=2e-3)
    assert [picture.shape for picture in pictures] == [(18, 76, 3)] * 4
    (path,) = save(scene, tmp_path / "one.mp4", "preview", ExportConfig(frames=(2,)))
    assert len(movie.load(path)[2]) == 1


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


def test_glb_colours_are_linear_and_nodes_are_frames(tmp_path, filmed) -> None:
    save(filmed, tmp_path / "a.glb", "glb", KEEP_ALL)
    document, (node,) = gltf.load(tmp_path / "a.glb")
    valid = np.isfinite(filmed.depth)
    assert node.linear is not None
    np.testing.assert_allclose(
        gltf.linear_to_srgb_bytes(node.linear), np.round(255 * filmed.rgb[valid]), atol=0.5
    )
    assert "linear" in document["scenes"][0]["extras"]["colours"]
    save(filmed, tmp_path / "b.glb", "glb", dataclasses.replace(KEEP_ALL, per_frame=True))
    _, nodes = gltf.load(tmp_path / "b.glb")
    assert [n.name for n in nodes] == [f"frame_{t:06d}" for t in range(4)]
    assert [n.extras["source_frame"] for n in nodes] == [10, 11, 12, 13]
    for t, one in enumerate(nodes):
        expected = filmed.points("world")[t][valid[t]] * [1, -1, -1]
        np.testing.assert_allclose(one.points, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="per_frame"):
        save(filmed, tmp_path / "folder", "glb", ExportConfig(per_frame=True))


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
    if up != "camera":
        with pytest.raises(ValueError, match="axes are fixed"):
            save(filmed, tmp_path / "b.glb", "glb", ExportConfig(up=up))


@pytest.mark.parametrize("name", first_camera.FORMATS)
def test_the_world_of_every_export_is_the_first_camera(tmp_path, filmed, name) -> None:
    suffix = {"npz": ".npz", "ply": ".ply", "glb": ".glb", "tum": ".txt", "kitti": ".txt"}.get(name, "")
    config = dataclasses.replace(KEEP_ALL, per_frame=name == "glb")
    save(filmed, tmp_path / f"out{suffix}", name, config)
    first_camera.assert_world_is_first_camera(tmp_path / f"out{suffix}", name, filmed.intrinsics[0])
    assert "first camera" in conventions(filmed)["world"]
    # The check sees a world that is another one, and the export says so.
    c2w = se3_exp(torch.tensor([[0.1, 0, 0.05, 0, 0.02, 0]], dtype=torch.float64)).numpy() @ filmed.c2w
    moved = dataclasses.replace(filmed, c2w=c2w)
    save(moved, tmp_path / f"moved{suffix}", name, config)
    with pytest.raises(AssertionError):
        first_camera.assert_world_is_first_camera(tmp_path / f"moved{suffix}", name, filmed.intrinsics[0])
    assert "not its origin" in conventions(moved)["world"]


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
