"""Read back with the chunk reader of the rerun package."""

import dataclasses
import json

import numpy as np
import pytest

from geo4d.export import ExportConfig, save

chunk = pytest.importorskip("rerun.chunk")

KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)


def load(path) -> dict[str, list[dict]]:
    """Rows of every entity by the frame that they were logged at."""
    rows: dict[str, list[dict]] = {}
    for one in chunk.RrdReader(str(path)).stream().to_chunks():
        rows.setdefault(one.entity_path, []).extend(one.to_record_batch().to_pylist())
    for entity in rows.values():
        entity.sort(key=lambda row: row.get("frame") or 0)
    return rows


def test_points_project_onto_their_pixels(tmp_path, shot, pixels_of) -> None:
    result = shot(centre=(0.55, 0.44))
    (path,) = save(result, tmp_path / "a.rrd", "rrd", dataclasses.replace(KEEP_ALL, frames=(1, 3)))
    rows = load(path)
    lenses = [row for row in rows["/world/camera/picture"] if row.get("Pinhole:image_from_camera")]
    for k, frame in enumerate((1, 3)):
        points, pose, lens = rows["/world/points"][k], rows["/world/camera"][k], lenses[k]
        assert points["frame"] == pose["frame"] == frame
        assert points["source_frame"] == 7 + 2 * frame
        turn = np.array(pose["Transform3D:mat3x3"][0]).reshape(3, 3).T  # columns come first
        seen = (np.array(points["Points3D:positions"]) - pose["Transform3D:translation"][0]) @ turn
        pinhole = np.array(lens["Pinhole:image_from_camera"][0]).reshape(3, 3).T
        pixels = seen / seen[:, 2:] @ pinhole.T
        assert np.abs(pixels[:, :2] - pixels_of(result.depth[frame])).max() < 0.01
        assert lens["Pinhole:resolution"] == [[64, 36]]
        depth = np.frombuffer(bytes(rows["/world/camera/picture/depth"][k]["DepthImage:buffer"][0]), "<f4")
        expected = np.where(np.isfinite(result.depth[frame]), result.depth[frame], 0)
        np.testing.assert_array_equal(depth.reshape(36, 64), expected)
    assert "OpenCV" in json.loads(rows["/conventions"][0]["TextDocument:text"][0])["camera_axes"]


def test_errors_are_those_of_every_format(tmp_path, shot) -> None:
    with pytest.raises(ValueError, match="no point is left"):
        save(shot(), tmp_path / "a.rrd", "rrd", ExportConfig(min_confidence=0.99))
    with pytest.raises(ValueError, match="geo4d pose"):
        save(dataclasses.replace(shot(), c2w=None), tmp_path / "a.rrd", "rrd")
    assert list(tmp_path.iterdir()) == []
