import pytest
import torch

from geo4d.cameras.published import PublishedCameras, windows_of
from geo4d.cameras.published_refine import query_points, refine_published
from geo4d.geometry.poses import inverse, matrix_to_quaternion, rotation_angle, so3_exp, transform
from tests.cameras.test_published import simulated_like


def cameras_of(w2c, fov):
    return PublishedCameras(matrix_to_quaternion(w2c[:, :3, :3].mT), w2c[:, :3, 3], fov)


def true_cameras(scene):
    half = torch.tensor([scene.depth.shape[2], scene.depth.shape[1]]) / 2
    fov = 2 * torch.atan(half / scene.intrinsics[:, [0, 1], [0, 1]])
    return cameras_of(inverse(scene.c2w).float(), fov.float())


def disturbed(cameras, size=0.02):
    """Every camera but the first turned and moved a little."""
    g = torch.Generator().manual_seed(0)
    noise = size * torch.randn(len(cameras.fov), 6, generator=g)
    noise[0] = 0
    w2c = cameras.w2c()
    w2c = torch.cat([so3_exp(noise[:, :3]) @ w2c[:, :3, :3], (w2c[:, :3, 3] + noise[:, 3:])[..., None]], 2)
    return cameras_of(torch.cat([w2c, cameras.w2c()[:, 3:]], 1), cameras.fov)


def errors(cameras, truth):
    """Largest error of the centres, and of the rotations in radians."""
    a, b = cameras.c2w(), truth.c2w()
    turn = rotation_angle(a[:, :3, :3].mT @ b[:, :3, :3])
    return float((a - b)[:, :3, 3].norm(dim=1).max()), float(turn.max())


def sum_of_losses(cameras, windows, depth_weight):
    """The authors' sum, written out, for points where the depth of their query frames puts them."""
    total = 0.0
    for window in windows:
        points, usable = query_points(cameras, window)
        frames = slice(window.start, window.start + len(window.ndc))
        seen = transform(cameras.w2c()[frames], points.expand(len(window.ndc), -1, -1))
        used = window.visible & usable
        used &= (used.sum(0) >= 2)[None]
        tangent = torch.tan(cameras.fov[frames] / 2)[:, None]
        place = (seen[..., :2] / seen[..., 2:] / tangent - window.ndc).square().sum(-1)
        ratio = (seen[..., 2] / window.depth - 1).square()
        total += float(((place + depth_weight * ratio) * used).sum() / used.sum())
    return total


@pytest.fixture
def scene(make_room):
    return make_room(num_frames=14, size=(48, 64), focal=50.0, travel=0.5, turn=0.1)


def test_points_start_where_the_query_frame_sees_them(scene):
    window = windows_of(simulated_like(scene), scene.depth)[0]
    world, usable = query_points(true_cameras(scene), window)
    assert usable.all()
    for row in (0, 5):  # the points of a still room are where any frame that sees them puts them
        chosen = torch.full((window.ndc.shape[1],), row)
        again, seen = query_points(true_cameras(scene), type(window)(**{**vars(window), "query": chosen}))
        assert float((again - world)[seen & window.visible[row]].norm(dim=1).median()) < 0.02


@pytest.mark.parametrize("depth_weight", [0.0, 1.0])
def test_disturbed_cameras_come_back(scene, depth_weight):
    truth = true_cameras(scene)
    windows = windows_of(simulated_like(scene), scene.depth)
    start = disturbed(truth)
    found, report = refine_published(start, windows, depth_weight=depth_weight)
    assert report.cost_start == pytest.approx(sum_of_losses(start, windows, depth_weight), rel=1e-3)
    assert report.cost_end < 0.02 * report.cost_start
    before, after = errors(start, truth), errors(found, truth)
    assert after[1] < 0.15 * before[1]
    assert after[0] < (0.15 if depth_weight else 0.5) * before[0]
    assert torch.equal(found.fov, start.fov)
    torch.testing.assert_close(found.c2w()[0], start.c2w()[0], atol=1e-5, rtol=0)


def test_depth_decides_the_scale(scene):
    """Places in pictures know no scale; only the depth term does."""
    windows = windows_of(simulated_like(scene), scene.depth)
    truth = true_cameras(scene)
    short = PublishedCameras(truth.quaternion, 0.8 * truth.translation, truth.fov)

    def path(cameras):
        return float((cameras.c2w()[-1] - cameras.c2w()[0])[:3, 3].norm())

    with_depth, _ = refine_published(short, windows, depth_weight=1.0)
    assert path(with_depth) == pytest.approx(path(truth), rel=0.01)


def test_without_tracks_there_is_nothing_to_refine(scene):
    windows = windows_of(simulated_like(scene), scene.depth)
    unseen = [type(w)(**{**vars(w), "visible": torch.zeros_like(w.visible)}) for w in windows]
    with pytest.raises(ValueError, match="expected tracks that are seen twice"):
        refine_published(true_cameras(scene), unseen)
    with pytest.raises(ValueError, match="depth weight >= 0, got -1"):
        refine_published(true_cameras(scene), windows, depth_weight=-1)
