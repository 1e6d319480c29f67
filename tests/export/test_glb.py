import dataclasses

import numpy as np
import pytest

from geo4d.export import ExportConfig, save
from geo4d.formats.glb import load_glb
from tests.readers_of_targets import gltf

KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)


def test_glb(tmp_path, scene) -> None:
    save(scene, tmp_path / "a.glb", "glb", dataclasses.replace(KEEP_ALL, frames=(2,)))
    valid = np.isfinite(scene.depth[2])
    np.testing.assert_allclose(load_glb(tmp_path / "a.glb").positions, scene.points()[2][valid], rtol=1e-5)
    save(scene, tmp_path / "frames", "glb")
    assert len(list((tmp_path / "frames").glob("*.glb"))) == 4


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


@pytest.mark.parametrize("size", [(36, 64), (64, 36)])
def test_the_camera_moves_with_the_times_and_sees_points_at_their_pixels(
    tmp_path, shot, pixels_of, size
) -> None:
    result = dataclasses.replace(shot(size, pixel_aspect=1.07), times_s=np.array([3.0, 3.1, 3.15, 3.3]))
    config = dataclasses.replace(KEEP_ALL, per_frame=True)
    save(result, tmp_path / "a.glb", "glb", config)
    _, nodes = gltf.load(tmp_path / "a.glb")
    for t, time_s in enumerate([0.0, 0.1, 0.15, 0.3]):
        seen = gltf.project(tmp_path / "a.glb", time_s, nodes[t].points, size)
        assert np.abs(seen - pixels_of(result.depth[t])).max() < 0.01
        shown = [gltf.animated(tmp_path / "a.glb", node.name, time_s)["scale"].tolist() for node in nodes]
        assert shown == [[float(one == t)] * 3 for one in range(4)]
    save(result, tmp_path / "one", "glb", KEEP_ALL)  # a file a frame: a camera that stands
    document, (node,) = gltf.load(tmp_path / "one/points_000002.glb")
    assert "animations" not in document
    seen = gltf.project(tmp_path / "one/points_000002.glb", 0, node.points, size)
    assert np.abs(seen - pixels_of(result.depth[2])).max() < 0.01


def test_what_gltf_cannot_say_of_a_lens_is_told_and_in_the_extras(tmp_path, shot, caplog) -> None:
    result = shot(centre=(0.55, 0.44), zoom=1.1)
    save(result, tmp_path / "a.glb", "glb", KEEP_ALL)
    assert "no place for a principal point" in caplog.text
    assert "no lens that changes" in caplog.text
    document, _ = gltf.load(tmp_path / "a.glb")
    (camera,) = [node for node in document["nodes"] if "camera" in node]
    np.testing.assert_allclose(camera["extras"]["intrinsics"], result.intrinsics)


def test_times_that_do_not_rise_take_the_usual_step(tmp_path, shot) -> None:
    result = dataclasses.replace(shot(), times_s=np.array([0.0, 0.04, 0.04, 0.08]))
    save(result, tmp_path / "a.glb", "glb", dataclasses.replace(KEEP_ALL, per_frame=True))
    assert gltf.animated(tmp_path / "a.glb", "frame_000002", 0.08)["scale"].tolist() == [1, 1, 1]
