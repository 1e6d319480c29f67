import math

import pytest
import torch

from geo4d.geometry.cameras import camera_rays, project
from geo4d.geometry.poses import rigid, so3_exp
from geo4d.models.monodepth.following import follow_frames
from geo4d.models.monodepth.over_time import Known
from tests.support.depths import box_clip, smooth

FRAMES = 8


@pytest.fixture(scope="module")
def still():
    """One picture shown again and again, with a thing that crosses it; true disparity, pictures, cameras at rest."""
    rgb, depth, intrinsics, _ = box_clip(1)
    rgb, disparity = rgb.repeat(FRAMES, 1, 1, 1), (1 / depth).repeat(FRAMES, 1, 1)
    for t in range(FRAMES):
        rgb[t, 20:60, 10 * t : 10 * t + 30] = torch.tensor([0.9, 0.1, 0.1])
        disparity[t, 20:60, 10 * t : 10 * t + 30] = 1.5
    return disparity, rgb, intrinsics.expand(FRAMES, 3, 3), torch.eye(4).expand(FRAMES, 4, 4)


def spoil(disparity, noise=0.02):
    generator = torch.Generator().manual_seed(4)
    scale = (0.25 * torch.randn(FRAMES, generator=generator)).exp()
    shift = 0.1 * torch.randn(FRAMES, generator=generator)
    bend = torch.cat([smooth(1, disparity.shape[1:], noise, seed) for seed in range(FRAMES)])
    return scale[:, None, None] * disparity * bend.exp() + shift[:, None, None] + 0.3


def background(disparity):
    return disparity[:, :18, :]  # nothing crosses here


def flicker(aligned):
    return background(aligned).log().diff(dim=0).abs().median()


def test_a_still_camera_gives_steady_frames(still):
    network = spoil(still[0])
    found = follow_frames(network, *still[1:], affine=True)
    raw = follow_frames(network, *still[1:], affine=True, steady=False)
    assert flicker(raw(network)) > 0.05
    assert flicker(found(network)) < 0.01
    assert torch.equal(raw.scale, raw.scale[:1].expand(FRAMES))


def test_depth_does_not_flatten_over_many_frames(still):
    """A regression would lose contrast by the network's noise at every step; a ratio of spreads does not."""
    disparity = still[0].repeat(5, 1, 1)
    rgb, k, c2w = still[1].repeat(5, 1, 1, 1), still[2].repeat(5, 1, 1), still[3].repeat(5, 1, 1)
    noise = 0.06 * torch.randn(disparity.shape, generator=torch.Generator().manual_seed(9))
    network = disparity + noise
    aligned = follow_frames(network, rgb, k, c2w, affine=True)(network)
    contrast = [background(aligned)[t].std() for t in (0, -1)]
    assert abs(float(contrast[1] / contrast[0]) - 1) < 0.08


def test_a_turning_camera_is_followed(still):
    """The same wall under a pan: without the turn the pixels in common are others."""
    rgb, depth, intrinsics, _ = box_clip(1)
    turn = torch.stack(
        [rigid(so3_exp(torch.tensor([0.0, math.radians(2 * t), 0.0])), torch.zeros(3)) for t in range(4)]
    )
    size = (rgb.shape[1], rgb.shape[2])
    rays = camera_rays(intrinsics[0], size).reshape(-1, 3)
    pictures, maps = [], []
    for pose in turn:
        seen = rays @ pose[:3, :3].T
        pixels, _ = project(seen, intrinsics[0])
        column, row = pixels[:, 0].clamp(0, size[1] - 1).long(), pixels[:, 1].clamp(0, size[0] - 1).long()
        pictures.append(rgb[0, row, column].reshape(*size, 3))
        maps.append((1 / depth)[0, row, column].reshape(size) / seen[:, 2].reshape(size))
    disparity = torch.stack(maps)
    scale = torch.tensor([1.0, 1.4, 0.7, 1.1])
    network = scale[:, None, None] * disparity
    found = follow_frames(network, torch.stack(pictures), intrinsics.expand(4, 3, 3), turn, affine=False)
    torch.testing.assert_close(found.scale * scale / found.scale[0], torch.ones(4), rtol=0.05, atol=0)


def test_metric_depth_stays_in_metres(still):
    drift = torch.tensor([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.1, 0.9])
    network = still[0] * drift[:, None, None]
    found = follow_frames(network, *still[1:], affine=False, metric=True)
    assert flicker(found(network)) < 0.01
    assert found.scale[0] == 1
    assert (found(network)[:, 0, 0] / still[0][:, 0, 0] - 1).abs().max() < 0.1


def test_the_next_window_goes_on_in_the_same_scale(still):
    network = spoil(still[0])
    first = follow_frames(network[:6], *(x[:6] for x in still[1:]), affine=True)
    nothing = torch.full((2,), torch.nan)
    known = Known(torch.cat([first.scale[2:], nothing]), torch.cat([first.shift[2:], nothing]))
    second = follow_frames(network[2:], *(x[2:] for x in still[1:]), affine=True, known=known)
    assert torch.equal(second.scale[:4], first.scale[2:])
    whole = torch.cat([first(network[:6]), second(network[2:])[4:]])
    assert flicker(whole) < 0.01


def test_nothing_in_common_keeps_the_frame_before(still):
    rgb = (
        torch.rand(still[1].shape, generator=torch.Generator().manual_seed(0))
        * (torch.arange(FRAMES) % 2)[:, None, None, None]
    )
    network = spoil(still[0])
    found = follow_frames(network[:2], rgb[:2], *(x[:2] for x in still[2:]), affine=True)
    assert found.scale[1] == found.scale[0]
