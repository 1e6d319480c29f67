"""The files of the page, read by their own rule: numpy for points, Pillow for pictures."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geo4d.service.preview import save_preview
from tests.support.served import square_scene

POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "u1", 3), ("_", "u1")])


def written(scene, folder: Path):
    """Index, points of each scene and of each frame, and pictures by frame and panel."""
    save_preview(scene, folder / "preview")
    index = json.loads((folder / "preview/index.json").read_text())
    points = np.frombuffer((folder / "preview/points.bin").read_bytes(), POINT)
    cuts = np.split(points, [*index["static_points"], *index["frame_points"]])
    assert len(cuts.pop()) == 0
    scenes = len(index["static_points"])
    data = (folder / "preview/frames.bin").read_bytes()
    start, pictures = 0, []
    for ends in index["frames"]:
        row = {}
        for name, end in zip(index["panels"], ends, strict=True):
            row[name] = np.asarray(Image.open(io.BytesIO(data[start:end])).convert("RGB"), int)
            start = end
        pictures.append(row)
    assert start == len(data)
    return index, cuts[:scenes], cuts[scenes:], pictures


def test_still_and_moving_points_lie_where_they_are(tmp_path) -> None:
    done = []
    scene = square_scene()
    save_preview(scene, tmp_path / "first", done.append)
    assert done == [1, 2, 3, 4, 5, 6]
    index, (wall,), frames, _ = written(scene, tmp_path)
    assert index["scale"] == "scale"
    assert index["typical_depth"] == [3.0]
    np.testing.assert_allclose(wall["z"], 3.0, atol=1e-5)
    assert (wall["rgb"] == 153).all()
    for t, square in enumerate(frames):
        np.testing.assert_allclose(square["z"], 2.0, atol=1e-5)
        assert (square["rgb"] == [255, 0, 0]).all()
        # The square's columns from 5 + 8t to 15 + 8t (its edges are left out), by a focal length of 60 at a depth of 2.
        centre = 2 * (10 + 8 * t - 32) / 60 + 0.2 * t / 5
        assert square["x"].mean() == pytest.approx(centre, abs=0.02)
        assert square["y"].mean() == pytest.approx(0, abs=0.02)


def test_pictures_of_all_panels_in_step(tmp_path) -> None:
    index, _, _, pictures = written(square_scene(), tmp_path)
    assert index["panels"] == ["picture", "depth", "moving", "confidence"]
    assert index["size"] == [64, 48]
    for t, row in enumerate(pictures):
        square, beside = np.s_[20:28, 8 + 8 * t : 12 + 8 * t], np.s_[40:46, 8 + 8 * t : 12 + 8 * t]
        assert row["picture"][square][..., 0].mean() > 220
        assert row["picture"][square][..., 1].mean() < 40
        assert np.abs(row["picture"][beside] - 153).max() < 20
        near, far = row["depth"][square].mean((0, 1)), row["depth"][beside].mean((0, 1))
        assert near[0] > near[2]  # red is near
        assert far[2] > far[0]
        assert row["moving"][square][..., 0].mean() > row["moving"][beside][..., 0].mean() + 100
    assert index["reliable"] == [True] * 5 + [False]
    thumb = np.asarray(Image.open(tmp_path / "preview/thumb.jpg"), int)
    assert thumb.shape == (48, 64, 3)


def test_cameras_are_those_of_the_result(tmp_path) -> None:
    scene = square_scene()
    index, *_ = written(scene, tmp_path)
    assert index["cameras"]["known"]
    np.testing.assert_allclose(np.reshape(index["cameras"]["c2w"], (6, 3, 4)), scene.c2w[:, :3], atol=1e-6)
    assert index["cameras"]["intrinsics"][0] == [60, 60, 32, 24]


def test_without_poses_colours_and_motion(tmp_path) -> None:
    scene = dataclasses.replace(square_scene(), c2w=None, rgb=None, dynamic=None, reliable=None)
    index, (still,), frames, pictures = written(scene, tmp_path)
    assert not index["cameras"]["known"]
    assert len(still) == 0
    assert all(len(frame) > 1000 for frame in frames)
    assert (frames[0]["rgb"] == 150).all()
    assert set(pictures[0]) == {"depth", "confidence"}


def test_scenes_have_points_of_their_own(tmp_path) -> None:
    scene = dataclasses.replace(square_scene(), scene=np.array([0, 0, 0, 1, 1, 1]))
    scene.depth[3:] *= 2
    index, (first, second), *_ = written(scene, tmp_path)
    np.testing.assert_allclose(first["z"], 3.0, atol=1e-5)
    np.testing.assert_allclose(second["z"], 6.0, atol=1e-5)
    assert index["scene"] == [0, 0, 0, 1, 1, 1]
    assert index["typical_depth"] == [3.0, 6.0]


def test_points_and_pictures_are_bounded(tmp_path, monkeypatch) -> None:
    from geo4d.service import preview

    for name, value in (("STATIC_POINTS", 600), ("MOST_FRAME_POINTS", 120), ("LONG_SIDE", 32)):
        monkeypatch.setattr(preview, name, value)
    index, (wall,), frames, pictures = written(square_scene(), tmp_path)
    assert 500 < len(wall) <= 600
    assert {len(frame) for frame in frames} == {20}
    assert index["size"] == [32, 24]
    assert pictures[0]["depth"].shape == (24, 32, 3)


def test_a_scene_without_any_depth(tmp_path) -> None:
    scene = square_scene()
    scene.depth[:] = np.nan
    _, (still,), frames, _ = written(scene, tmp_path)
    assert len(still) == sum(map(len, frames)) == 0
