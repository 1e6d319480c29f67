import torch

from geo4d.fusion.samples import take_samples


def test_samples_are_a_jittered_grid_common_to_all_windows(make_wall):
    wall = make_wall(num_frames=16, noise=0.0)
    arguments = {"num_frames": 16, "size": None, "weight_limit": 10, "min_disparity": 0.05}
    samples = take_samples(wall.predictions, num_samples=60, **arguments)
    assert samples.num_windows == 3
    assert 40 <= samples.pixels.shape[2] <= 80
    assert not torch.equal(samples.pixels[0], samples.pixels[1])
    rows = torch.nonzero(samples.frame == 9)[:, 0]
    assert samples.window[rows].tolist() == [1, 2]
    x, y = samples.pixels[9].long()
    expected = wall.predictions[1].point_map[9 - 4, y, x].T
    assert torch.equal(samples.points[rows[0]], expected)
    everything = take_samples(wall.predictions, num_samples=10**6, **arguments)
    assert everything.pixels.shape[2] == 24 * 36
