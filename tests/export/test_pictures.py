"""Folders to train on with pictures of full size: read by the rules of COLMAP, nerfstudio and graphdeco's code."""

import dataclasses

import cv2
import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.export import ExportConfig, save
from tests.readers_of_targets import colmap, nerfstudio

SIZE, FULL = (18, 25), (45, 100)
"""Of the maps and of the source: the maps are stretched by 4 and 2.5."""


class Counted:
    """Full-size pictures with a counter of those that are asked for; each frame one colour with a bright stripe."""

    def __init__(self) -> None:
        self.shape, self.dtype, self.asked = (4, *FULL, 3), np.dtype(np.float32), []

    def __getitem__(self, key):
        assert isinstance(key, int), "one frame at a time"
        self.asked.append(key)
        picture = np.full((*FULL, 3), 0.2 * key, np.float32)
        picture[:, 40 + key] = 1
        return picture


@pytest.fixture
def large(filmed):
    return dataclasses.replace(filmed, source_rgb=Counted())


CONFIG = ExportConfig(points_per_frame=60, images="source")


def moving_by_hand(dynamic: np.ndarray) -> np.ndarray:
    """Bilinear between the centres of the pixels of the maps, in plain loops; True from one half on."""
    moving = np.zeros(FULL, bool)
    for row in range(FULL[0]):
        for column in range(FULL[1]):
            y = np.clip((row + 0.5) * SIZE[0] / FULL[0] - 0.5, 0, SIZE[0] - 1)
            x = np.clip((column + 0.5) * SIZE[1] / FULL[1] - 0.5, 0, SIZE[1] - 1)
            top, left = min(int(y), SIZE[0] - 2), min(int(x), SIZE[1] - 2)
            dy, dx = y - top, x - left
            upper = (1 - dx) * dynamic[top, left] + dx * dynamic[top, left + 1]
            lower = (1 - dx) * dynamic[top + 1, left] + dx * dynamic[top + 1, left + 1]
            moving[row, column] = (1 - dy) * upper + dy * lower >= 0.5
    return moving


def test_colmap_cameras_and_masks_have_the_size_of_the_source(tmp_path, large) -> None:
    save(large, tmp_path / "c", "colmap", CONFIG)
    assert large.source_rgb.asked == [0, 1, 2, 3]
    model = colmap.load(tmp_path / "c")  # compares the size of every picture with its camera
    for number, image in enumerate(sorted(model.images.values(), key=lambda image: image.name)):
        camera = model.cameras[image.camera_id]
        assert (camera.height, camera.width) == FULL
        np.testing.assert_allclose(camera.params, [30 * 4, 30 * 2.5, 50, 22.5], rtol=1e-12)
        np.testing.assert_array_equal(
            colmap.mask(tmp_path / "c", image.name), ~moving_by_hand(large.dynamic[number])
        )
        picture = cv2.imread(str(tmp_path / "c/images" / image.name))
        assert (picture[:, 40 + number] == 255).all()
        assert (picture[:, 30] == round(51 * number)).all()
    worst = 0.0
    for point in model.points3D.values():
        for element in point.track.elements:
            image = model.images[element.image_id]
            seen = image.points2D[element.point2D_idx].xy
            worst = max(worst, float(np.abs(image.project_point(point.xyz) - seen).max()))
            assert (seen >= 0).all()
            assert (seen <= FULL[::-1]).all()
    assert worst < 1e-6
    assert "full size of the source" in (tmp_path / "c/README.txt").read_text(encoding="utf-8")


def test_nerfstudio_sees_the_wall_where_its_depth_is(tmp_path, large) -> None:
    save(large, tmp_path / "n", "nerfstudio", CONFIG)
    scene = nerfstudio.load(tmp_path / "n")  # compares sizes, and enlarges the depth
    np.testing.assert_allclose(scene.intrinsics, [[120, 75, 50, 22.5]] * 4, rtol=1e-12)
    assert scene.masks is not None
    assert scene.points is not None
    assert scene.depth.shape == (4, *FULL)
    for frame in range(4):
        np.testing.assert_array_equal(scene.masks[frame], ~moving_by_hand(large.dynamic[frame]))
        pixels, z = nerfstudio.project(scene, frame, scene.points)
        column, row = np.floor(pixels).astype(int).T
        inside = (column > 4) & (column < FULL[1] - 5) & (row > 3) & (row < FULL[0] - 4)
        inside[inside] &= scene.masks[frame][row[inside], column[inside]]
        assert inside.sum() > 100
        there = scene.depth[frame][row[inside], column[inside]]
        assert np.median(np.abs(there / z[inside] - 1)) < 5e-3


def test_alpha_takes_what_moves_out_of_the_loss_of_graphdeco(tmp_path, large) -> None:
    """Its code multiplies the rendering, not the picture, by the alpha: the picture must be black there."""
    save(large, tmp_path / "c", "colmap", dataclasses.replace(CONFIG, alpha=True))
    for frame in range(4):
        picture = cv2.imread(str(tmp_path / f"c/images/frame_{frame:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (*FULL, 4)
        moving = moving_by_hand(large.dynamic[frame])
        np.testing.assert_array_equal(picture[..., 3] == 0, moving)
        rendering = np.full((*FULL, 3), 200) * (picture[..., 3:] // 255)
        assert (rendering[moving] == picture[moving][:, :3]).all()
        assert (picture[~moving][:, 3] == 255).all()
    with pytest.raises(ValueError, match="format colmap with alpha"):
        save(large, tmp_path / "n", "nerfstudio", dataclasses.replace(CONFIG, alpha=True))


def test_points_are_counted_over_all_frames(tmp_path, large) -> None:
    save(large, tmp_path / "c", "colmap", dataclasses.replace(CONFIG, most_points=20))
    assert colmap.load(tmp_path / "c").num_points3D() == 20
    with pytest.raises(ValueError, match="most_points >= 1"):
        dataclasses.replace(CONFIG, most_points=0)


def test_a_source_that_is_gone_is_an_error(tmp_path, filmed) -> None:
    gone = dataclasses.replace(filmed, provenance={"source": {"path": "/films/a.mp4"}})
    for name in ("colmap", "nerfstudio"):
        with pytest.raises(InputError, match=r"/films/a\.mp4 is not there any more.*--images maps"):
            save(gone, tmp_path / name, name, CONFIG)
        assert not (tmp_path / name).exists()
    with pytest.raises(InputError, match="its source was no file"):
        save(filmed, tmp_path / "x", "colmap", CONFIG)
    with pytest.raises(ValueError, match="colmap or nerfstudio with images of the source, got ply"):
        save(filmed, tmp_path / "x.ply", "ply", CONFIG)
