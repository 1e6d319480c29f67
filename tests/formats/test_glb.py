import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.glb import GlbCamera, load_glb, save_glb
from geo4d.formats.points import PointCloud
from tests.readers_of_targets import gltf


def cloud(rng: np.random.Generator, count: int = 50) -> PointCloud:
    return PointCloud(
        positions=rng.normal(size=(count, 3)).astype(np.float32),
        colours=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        confidence=rng.random(count).astype(np.float32),
        frames=rng.integers(0, 5, count).astype(np.int32),
    )


def test_glb_round_trip_turns_axes(tmp_path, rng) -> None:
    import trimesh

    points = cloud(rng)
    save_glb(tmp_path / "a.glb", points, {"unit": "metres"})
    read = load_glb(tmp_path / "a.glb")
    np.testing.assert_allclose(read.positions, points.positions, rtol=1e-6)
    np.testing.assert_array_equal(read.colours, points.colours)
    raw = next(iter(trimesh.load_scene(tmp_path / "a.glb").geometry.values()))
    np.testing.assert_allclose(raw.vertices[:, 1], -points.positions[:, 1], rtol=1e-6)
    _, (node,) = gltf.load(tmp_path / "a.glb")
    assert node.linear is not None
    np.testing.assert_array_equal(gltf.linear_to_srgb_bytes(node.linear), points.colours)
    np.testing.assert_allclose(raw.colors[:, :3], 255 * node.linear, atol=0.51)
    (tmp_path / "b.glb").write_bytes(b"glTFnothing here")
    with pytest.raises(InputError):
        load_glb(tmp_path / "b.glb")


def test_glb_of_many_clouds(tmp_path, rng) -> None:
    import trimesh

    clouds = [cloud(rng), cloud(rng, 7), cloud(rng, 0)]
    assert save_glb(tmp_path / "a.glb", iter(clouds)) == 57
    _, (node,) = gltf.load(tmp_path / "a.glb")
    expected = np.concatenate([c.positions for c in clouds]) * [1, -1, -1]
    np.testing.assert_array_equal(node.points, expected)
    names = [("a", {"frame": 1}), ("b", {}), ("c", {})]
    save_glb(tmp_path / "b.glb", clouds, {"unit": "metres"}, nodes=names)
    document, nodes = gltf.load(tmp_path / "b.glb")
    assert document["scenes"][0]["extras"] == {"unit": "metres"}
    assert [(n.name, len(n.points)) for n in nodes] == [("a", 50), ("b", 7), ("c", 0)]
    assert nodes[0].extras == {"frame": 1}
    assert set(trimesh.load_scene(tmp_path / "b.glb").geometry) == {"a", "b"}
    np.testing.assert_array_equal(load_glb(tmp_path / "b.glb").positions[50:], clouds[1].positions)
    save_glb(tmp_path / "grey.glb", PointCloud(clouds[0].positions))
    assert gltf.load(tmp_path / "grey.glb")[1][0].linear is None
    assert load_glb(tmp_path / "grey.glb").colours is None
    save_glb(tmp_path / "empty.glb", [])
    assert [len(node.points) for node in gltf.load(tmp_path / "empty.glb")[1]] == [0]
    with pytest.raises(InputError, match="point cloud"):
        load_glb(tmp_path / "empty.glb")
    with pytest.raises(ValueError, match="both"):
        save_glb(tmp_path / "c.glb", [clouds[0], PointCloud(clouds[1].positions)])
    with pytest.raises(ValueError, match="a node for each"):
        save_glb(tmp_path / "c.glb", clouds, nodes=names[:2])
    assert not (tmp_path / "c.glb").exists()
    data = (tmp_path / "a.glb").read_bytes()
    (tmp_path / "d.glb").write_bytes(data[:-100])
    with pytest.raises(InputError, match="truncated"):
        load_glb(tmp_path / "d.glb")


def test_glb_camera_and_times(tmp_path, rng) -> None:
    still = GlbCamera(np.eye(4)[None], np.zeros(1), 0.8, 1.5, 0.1, 9.0, {"a": 1})
    save_glb(tmp_path / "a.glb", cloud(rng), camera=still)
    document, _ = gltf.load(tmp_path / "a.glb")
    lens = document["cameras"][0]["perspective"]
    assert lens == {"yfov": 0.8, "aspectRatio": 1.5, "znear": 0.1, "zfar": 9.0}
    assert "animations" not in document
    names = [("a", {}), ("b", {})]
    with pytest.raises(ValueError, match="a time for each node"):
        save_glb(tmp_path / "b.glb", [cloud(rng)] * 2, nodes=names, shown_s=[0.0])
    with pytest.raises(ValueError, match="rise"):
        save_glb(tmp_path / "b.glb", [cloud(rng)] * 2, nodes=names, shown_s=[0.0, -1.0])
    half_turn = np.diag([-1.0, 1, -1, 1])  # about y: glTF and OpenCV agree on x
    moving = GlbCamera(np.stack([np.eye(4), half_turn]), np.array([0, 0.5]), 0.8, 1.5, 0.1, 9.0)
    save_glb(tmp_path / "c.glb", [], camera=moving)
    np.testing.assert_allclose(
        np.abs(gltf.animated(tmp_path / "c.glb", "camera", 0.5)["rotation"]), [0, 1, 0, 0], atol=1e-6
    )
    assert load_glb(tmp_path / "a.glb").num_points == 50
