import pytest
import torch

from geo4d.fusion.samples import Trajectory, take_samples
from geo4d.fusion.start_maps import fit_disparities, fit_trajectories
from geo4d.geometry.poses import rigid, so3_exp
from tests.support.drawn import draw


def test_disparities_by_least_absolute_deviations(make_wall):
    wall = make_wall(num_frames=12, noise=0.0)
    wall.predictions[0].disparity[:, :, :6] = 0.9  # a share of the pixels is wrong
    samples = take_samples(
        wall.predictions, num_frames=12, size=None, num_samples=10**6, weight_limit=10, min_disparity=0.05
    )
    depth = wall.depth.flatten(1).float()
    usable = samples.disparity_mask > 0
    fits = fit_disparities(samples, depth, usable)
    clean = wall.predictions[1].disparity[0, 0, 20:].double()
    aligned = fits.scale[1] * clean + fits.shift[1]
    assert torch.allclose(aligned, 1 / wall.depth[4, 0, 20:], rtol=1e-3)
    clean = wall.predictions[0].disparity[0, 0, 20:].double()
    assert torch.allclose(fits.scale[0] * clean + fits.shift[0], 1 / wall.depth[0, 0, 20:], rtol=2e-2)
    assert float(fits.share[1]) == 1
    nothing = fit_disparities(samples, depth, torch.zeros_like(usable))
    assert nothing.scale.tolist() == [1.0, 1.0]
    assert torch.isinf(nothing.error).all()


def test_trajectories_of_any_length_are_aligned():
    c2w = rigid(so3_exp(0.3 * draw(20, 3)), draw(20, 3, seed=1))
    tracks = []
    for start, count in ((0, 8), (5, 8), (3, 12)):
        frames = torch.arange(start, start + count)
        turn = so3_exp(draw(1, 3, seed=start))[0]
        local = rigid(turn.T @ c2w[frames, :3, :3], (c2w[frames, :3, 3] - 1.0) @ turn / 2.5)
        tracks.append(Trajectory(frames, local, torch.ones(count).double(), 0))
    fits = fit_trajectories(tracks, c2w[:, :3, :3], c2w[:, :3, 3], torch.ones(3).double())
    assert torch.allclose(fits.scale, torch.full((3,), 2.5).double(), rtol=1e-4)
    assert torch.allclose(fits.translation, torch.ones(3, 3).double(), atol=1e-3)
    assert float(fits.rpe_rad.max()) < 1e-6
    still = Trajectory(torch.arange(4), torch.eye(4).double().repeat(4, 1, 1), torch.ones(4).double(), 0)
    alone = fit_trajectories(
        [still], c2w[:, :3, :3], torch.zeros(20, 3).double(), torch.tensor([0.7]).double()
    )
    assert float(alone.scale) == pytest.approx(0.7)
