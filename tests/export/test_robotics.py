"""MCAP files read by the ROS 2 decoder of the MCAP project, and back by our own reader as footage."""

import dataclasses
import logging

import cv2
import numpy as np
import pytest

from geo4d.export import ExportConfig, save
from geo4d.video.bags import find_camera
from geo4d.video.io import Video
from tests.readers_of_targets import ros

KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)


def smooth(result):
    """With colours that JPEG keeps."""
    t, y, x = np.indices(result.depth.shape)
    rgb = 0.5 + 0.4 * np.sin(np.stack([0.1 * x + t, 0.08 * y - t, 0.05 * (x + y)], -1))
    return dataclasses.replace(result, rgb=rgb.astype(np.float32))


def test_points_fall_onto_their_pixels_by_the_rules_of_ros(tmp_path, shot, pixels_of) -> None:
    result = smooth(shot(centre=(0.55, 0.44)))
    (path,) = save(result, tmp_path / "a.mcap", "mcap", dataclasses.replace(KEEP_ALL, frames=(1, 3)))
    topics, notes = ros.load(path)
    assert sorted(topics) == [
        "/camera/camera_info",
        "/camera/depth",
        "/camera/image/compressed",
        "/path",
        "/points",
        "/tf",
    ]
    for k, frame in enumerate((1, 3)):
        time_s, moved = topics["/tf"][k]
        transform = moved.transforms[0]
        assert time_s == pytest.approx(float(result.times_s[frame]), abs=1e-8)
        assert ros.stamp(transform.header) == pytest.approx(time_s, abs=1e-8)
        assert (transform.header.frame_id, transform.child_frame_id) == ("map", "camera_optical_frame")
        pose = ros.matrix(transform.transform.translation, transform.transform.rotation)
        points = topics["/points"][k][1]
        assert points.header.frame_id == "map"
        fields = ros.cloud(points)
        world = np.stack([fields[axis] for axis in "xyz"], 1).astype(np.float64)
        camera = (world - pose[:3, 3]) @ pose[:3, :3]
        info = topics["/camera/camera_info"][k][1]
        assert (info.width, info.height) == (64, 36)
        assert not any(info.d)
        projection = np.array(info.p).reshape(3, 4)
        np.testing.assert_array_equal(projection[:, :3].ravel(), info.k)
        pixels = camera / camera[:, 2:] @ projection[:, :3].T
        assert np.abs(pixels[:, :2] + 0.5 - pixels_of(result.depth[frame])).max() < 0.01
        np.testing.assert_array_equal(ros.image(topics["/camera/depth"][k][1]), result.depth[frame])
        picture = topics["/camera/image/compressed"][k][1]
        assert picture.header.frame_id == info.header.frame_id == "camera_optical_frame"
        shown = cv2.imdecode(np.frombuffer(bytes(picture.data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(shown / 255 - result.rgb[frame]).mean() < 0.02  # JPEG
        colours = np.round(255 * np.clip(result.rgb[frame][np.isfinite(result.depth[frame])], 0, 1))
        np.testing.assert_allclose(fields["rgb"], colours, atol=1)
        placed = topics["/path"][0][1].poses[k].pose
        np.testing.assert_allclose(ros.matrix(placed.position, placed.orientation), pose)
    assert "unit" in notes
    assert notes["source_frames"] == "9 13"


def test_z_is_up_unless_the_axes_of_the_camera_are_asked_for(tmp_path, filmed) -> None:
    for up, forward, below in ((None, [0, 1, 0], [0, 0, -1]), ("camera", [0, 0, 1], [0, 1, 0])):
        (path,) = save(filmed, tmp_path / f"{up}.mcap", "mcap", dataclasses.replace(KEEP_ALL, up=up))
        first = ros.load(path)[0]["/tf"][0][1].transforms[0].transform
        pose = ros.matrix(first.translation, first.rotation)
        np.testing.assert_allclose(pose[:3, 2], forward, atol=1e-6)
        np.testing.assert_allclose(pose[:3, 1], below, atol=1e-6)


def test_what_is_not_in_metres_is_warned_about(tmp_path, filmed, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        save(filmed, tmp_path / "a.mcap", "mcap", KEEP_ALL)
    assert "ROS takes lengths for metres" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        save(dataclasses.replace(filmed, scale_kind="metric"), tmp_path / "b.mcap", "mcap", KEEP_ALL)
    assert "ROS takes" not in caplog.text


def test_the_file_is_footage_again(tmp_path, filmed) -> None:
    filmed = smooth(filmed)
    (path,) = save(filmed, tmp_path / "folder", "mcap", KEEP_ALL)
    assert path == tmp_path / "folder" / "scene.mcap"
    with Video(path) as video:
        np.testing.assert_allclose(video.times_s, filmed.times_s, atol=1e-8)
        assert np.abs(video.read([2])[0].numpy() - filmed.rgb[2]).mean() < 0.02  # JPEG
    camera = find_camera(path, None)
    K = filmed.intrinsics[0]
    assert camera.intrinsics == pytest.approx((K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    assert camera.distortion is None


def test_without_poses_it_is_refused(tmp_path, filmed) -> None:
    with pytest.raises(ValueError, match="geo4d pose"):
        save(dataclasses.replace(filmed, c2w=None), tmp_path / "a.mcap", "mcap")
    assert list(tmp_path.iterdir()) == []
