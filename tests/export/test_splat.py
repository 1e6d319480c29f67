"""Points, cameras and masks of the example clip, trained as a splat: they fit, and better than other starts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import geo4d
from geo4d.export import ExportConfig, save
from tests.readers_of_targets import colmap
from tests.support.splat import Splat, View, error, train

CLIP = Path(__file__).parents[2] / "examples/clip.mp4"
SIZE, COUNT, STEPS = (96, 160), 10_000, 200


def views_of(folder: Path) -> list[View]:
    """Pictures of an exported folder, scaled to ``SIZE``, with their cameras and masks."""
    model, views = colmap.load(folder), []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        camera = model.cameras[image.camera_id]
        x, y = SIZE[1] / camera.width, SIZE[0] / camera.height
        fx, fy, cx, cy = camera.params
        picture = cv2.imread(str(folder / "images" / image.name))[..., ::-1] / np.float32(255)
        static = colmap.mask(folder, image.name).astype(np.float32)
        picture, static = (
            cv2.resize(map, SIZE[::-1], interpolation=cv2.INTER_AREA) for map in (picture, static)
        )
        w2c = torch.tensor(np.linalg.inv(colmap.world_from_camera(image)), dtype=torch.float32)
        views.append(
            View(w2c, (fx * x, fy * y), (cx * x, cy * y), torch.tensor(picture), torch.tensor(static == 1))
        )
    return views


def test_the_splat_blends_near_before_far_and_learns_a_colour() -> None:
    view = View(torch.eye(4), (20.0, 20.0), (8.0, 8.0), torch.zeros(16, 16, 3), torch.ones(16, 16).bool())
    splat = Splat(
        np.float32([[0.02, 0.02, 1], [0.05, 0.05, 2], [9, 9, 1], [9, 9, -1], [9, 8, 1]]), np.eye(5, 3)
    )
    with torch.no_grad():
        splat.log_width[:] = np.log(0.05)
        splat.opacity[:] = 0
    red, green, blue = splat(view)[8, 8].tolist()
    near = 0.5 * np.exp(-0.5 * 2 * 0.1**2)  # one pixel wide, its centre 0.1 px off in x and y
    assert red == pytest.approx(near, abs=1e-5)
    assert green == pytest.approx((1 - near) * 0.5, abs=1e-5)  # in the middle of the pixel
    assert blue == 0
    picture = splat(view).detach() * torch.tensor([0.3, 1, 1])
    lit = picture.sum(dim=-1) > 0.1
    view = View(view.w2c, view.focal, view.centre, picture, lit)
    before = error(splat, [view])
    train(splat, [view], 60)
    assert error(splat, [view]) < 0.2 * before


@pytest.mark.slow
def test_exported_points_and_cameras_train_and_beat_other_starts(tmp_path) -> None:
    """Views that the training did not see, where nothing moves; starts of as many points.

    Random points in the same box, and our points moved along their rays to one depth: colours and directions as good as
    ours, without geometry.
    """
    result = geo4d.reconstruct(CLIP, tmp_path / "out", seed=0)
    save(result, tmp_path / "c", "colmap", ExportConfig(points_per_frame=400, images="source"))
    views = views_of(tmp_path / "c")
    held_out, seen = views[4::8], [view for number, view in enumerate(views) if number % 8 != 4]
    assert min(float(view.static.float().mean()) for view in views) > 0.5

    model = colmap.load(tmp_path / "c")
    rng = np.random.default_rng(0)
    points = [model.points3D[number] for number in sorted(model.points3D)]
    points = [points[index] for index in rng.permutation(len(points))[:COUNT]]
    ours = np.array([point.xyz for point in points])
    colours = np.array([point.color for point in points]) / 255
    order = {image.image_id: row for row, image in
             enumerate(sorted(model.images.values(), key=lambda image: image.name))}  # fmt: skip
    cameras = np.stack([views[order[point.track.elements[0].image_id]].w2c.numpy() for point in points])
    local = np.einsum("nij,nj->ni", cameras, np.c_[ours, np.ones(COUNT)])
    local[:, :3] *= np.median(local[:, 2]) / local[:, 2:3]
    flat = np.linalg.solve(cameras, local[..., None])[:, :3, 0]
    low, high = np.percentile(ours, [1, 99], axis=0)
    starts = {
        "ours": (ours, colours),
        "flat": (flat, colours),
        "random": (rng.uniform(low, high, ours.shape), rng.uniform(0, 1, ours.shape)),
    }
    before, after = {}, {}
    for name, start in starts.items():
        splat = Splat(*start)
        before[name] = error(splat, held_out)
        train(splat, seen, STEPS)
        after[name] = error(splat, held_out)
    assert after["ours"] < 0.5 * before["ours"], (before, after)
    assert after["ours"] < 0.75 * after["flat"], (before, after)
    assert after["ours"] < 0.33 * after["random"], (before, after)
