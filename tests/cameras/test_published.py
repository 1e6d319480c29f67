import math

import pytest
import torch

from geo4d.cameras.published import (
    PublishedCameras,
    published_adam,
    published_cameras,
    published_fov,
    published_loss,
    published_start,
    window_tracks,
    windows_of,
)
from geo4d.geometry.poses import matrix_to_quaternion, transform
from geo4d.tracks.types import Tracks


def exact_window(scene, num_points=40):
    """Points of the first frame followed exactly, as pixels of every frame."""
    g = torch.Generator().manual_seed(0)
    T, H, W = scene.depth.shape
    K = scene.intrinsics[0].double()
    xy = torch.rand(num_points, 2, generator=g) * torch.tensor([W * 0.6, H * 0.6]) + torch.tensor(
        [W * 0.2, H * 0.2]
    )
    xy = xy.floor().double() + 0.5
    z = scene.depth[0, xy[:, 1].long(), xy[:, 0].long()].double()
    X = torch.cat([xy, torch.ones(num_points, 1).double()], 1) @ torch.linalg.inv(K).T * z[:, None]
    X = X @ scene.c2w[0, :3, :3].T + scene.c2w[0, :3, 3]
    w2c = torch.linalg.inv(scene.c2w)
    p = (w2c[:, None, :3, :3] @ X[..., None])[..., 0] + w2c[:, None, :3, 3]
    uv = (p @ K.T)[..., :2] / (p @ K.T)[..., 2:]
    window = window_tracks(0, uv.float(), torch.ones(T, num_points, dtype=torch.bool), scene.depth)
    return window, p[..., 2].float()


def test_true_cameras_have_no_loss(make_room):
    scene = make_room(num_frames=4, size=(96, 128), focal=100.0)
    window, depth = exact_window(scene)
    window = type(window)(0, window.ndc, window.visible, depth)
    w2c = torch.linalg.inv(scene.c2w).float()
    fov = 2 * torch.atan(torch.tensor([64 / 100.0, 48 / 100.0])).expand(4, 2)
    cameras = PublishedCameras(3 * matrix_to_quaternion(w2c[:, :3, :3].mT), w2c[:, :3, 3], fov)
    assert float(published_loss(cameras, window)) < 1e-9
    torch.testing.assert_close(cameras.c2w(), scene.c2w.float(), atol=1e-5, rtol=0)


def test_points_that_leave_the_picture_do_not_count():
    xy = torch.tensor([[[5.0, 5.0], [-1.0, 5.0]], [[5.0, 5.0], [5.0, 20.0]]])
    window = window_tracks(
        1, xy, torch.ones(2, 2, dtype=torch.bool), torch.arange(1.0, 4)[:, None, None].expand(3, 10, 10)
    )
    assert window.visible.tolist() == [[True, False], [True, False]]
    assert window.depth[:, 0].tolist() == [2.0, 3.0]
    assert window.ndc.abs().max() <= 1


def test_adam_brings_the_loss_down(make_room):
    scene = make_room(num_frames=4, size=(96, 128), focal=100.0, travel=0.3)
    window, _ = exact_window(scene)
    fov = published_fov(torch.tensor([[0.0, 0.0, 0.64, 0.48]]).expand(4, 4))
    assert math.isclose(float(fov[0, 0]), 2 * math.atan(0.64), rel_tol=1e-6)
    _, curve = published_adam(published_start(fov), [window], 40)
    assert curve[-1] < 0.2 * curve[0]


def test_cameras_of_depth_maps_come_near_the_truth(make_room):
    scene = make_room(num_frames=8, size=(48, 64), focal=50.0, travel=0.3, turn=0.06)
    tracks = simulated_like(scene)
    windows = windows_of(tracks, scene.depth)
    found, curve = published_cameras(windows, scene.intrinsics, tracks.size, num_steps=400)
    assert float(curve[-1]) < 0.02 * float(curve[0])
    c2w, truth = found.c2w().double(), scene.c2w
    centres = (torch.linalg.inv(c2w[:1]) @ c2w)[:, :3, 3]
    expected = (torch.linalg.inv(truth[:1]) @ truth)[:, :3, 3]
    assert float((centres - expected).norm(dim=1).max()) < 0.03  # a path of 0.3
    with pytest.raises(ValueError, match="expected 8 depth maps"):
        windows_of(tracks, scene.depth[:3])
    with pytest.raises(ValueError, match="expected intrinsics of 8 frames, got 3"):
        published_cameras(windows, scene.intrinsics[:3], tracks.size)


def simulated_like(scene):
    """Exact tracks of pixels of the first frame."""
    xs, ys = torch.meshgrid(torch.arange(6, 58, 4), torch.arange(6, 42, 4), indexing="xy")
    pixels = torch.stack([xs.flatten(), ys.flatten()], 1) + 0.5
    K = scene.intrinsics[0].double()
    rays = torch.cat([pixels.double(), torch.ones(len(pixels), 1).double()], 1) @ torch.linalg.inv(K).T
    depth = scene.depth[0][ys.flatten(), xs.flatten()].double()
    world = transform(scene.c2w[0], rays * depth[:, None])
    track, frame, xy = [], [], []
    for t in range(len(scene.c2w)):
        seen = transform(torch.linalg.inv(scene.c2w[t]), world) @ K.T
        place = seen[:, :2] / seen[:, 2:]
        inside = ((place > 1) & (place < torch.tensor([63.0, 47.0]))).all(1).nonzero()[:, 0]
        track.append(inside)
        frame.append(torch.full_like(inside, t))
        xy.append(place[inside].float())
    order = (torch.cat(track) * 100 + torch.cat(frame)).argsort()
    starts = torch.zeros(len(scene.c2w), dtype=torch.bool)
    starts[0] = True
    return Tracks(
        torch.cat(track)[order], torch.cat(frame)[order], torch.cat(xy)[order], len(starts), (48, 64), starts
    )
