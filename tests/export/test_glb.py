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
