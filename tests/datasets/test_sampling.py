from collections import Counter

import numpy as np
import pytest
import torch

from geo4d.datasets.sampling import choose_frames, draw_mixture, mirror_cameras, turn_cameras, vary_colours
from geo4d.geometry.cameras import centred_intrinsics, project, unproject
from geo4d.geometry.poses import inverse, transform
from tests.support.poses import se3_exp


def test_frames_are_evenly_spaced_inside_the_clip() -> None:
    rng = np.random.default_rng(0)
    strides, firsts, directions = Counter(), Counter(), Counter()
    for _ in range(400):
        frames = choose_frames(46, 16, (1, 2, 3), rng)
        steps = frames.diff().unique()
        assert len(steps) == 1
        assert 0 <= int(frames.min()) <= int(frames.max()) < 46
        strides[abs(int(steps[0]))] += 1
        directions[int(steps[0]) > 0] += 1
        firsts[int(frames.min())] += 1
    assert set(strides) == {1, 2, 3}
    assert min(strides.values()) > 90
    assert min(directions.values()) > 150
    assert len(firsts) > 20


def test_strides_that_do_not_fit_are_left_out() -> None:
    rng = np.random.default_rng(0)
    assert {abs(int(choose_frames(16, 16, (1, 2, 3), rng).diff()[0])) for _ in range(20)} == {1}
    with pytest.raises(ValueError, match="more than 15 frames"):
        choose_frames(15, 16, (1, 2, 3), rng)


def test_the_mixture_is_a_function_of_index_and_seed_with_the_asked_ratios() -> None:
    drawn = [draw_mixture((1, 0, 3), index, 5) for index in range(2000)]
    assert drawn == [draw_mixture((1, 0, 3), index, 5) for index in range(2000)]
    counts = Counter(drawn)
    assert counts[1] == 0
    assert counts[2] / counts[0] == pytest.approx(3, rel=0.2)
    with pytest.raises(ValueError, match="positive sum"):
        draw_mixture((0, 0), 0, 0)


def test_a_mirrored_camera_sees_the_mirrored_world_in_the_flipped_picture() -> None:
    size = (20, 30)
    K = centred_intrinsics(torch.tensor(25.0), size)
    K[0, 2] += 2.5
    c2w = se3_exp(torch.tensor([0.3, -0.2, 0.5, 0.1, 0.4, -0.2]))
    points = transform(c2w, unproject(1 + torch.rand(size), K).reshape(-1, 3))
    mirrored_K, mirrored_c2w = mirror_cameras(K, c2w, size[1])
    mirrored_points = points * torch.tensor([-1.0, 1, 1])
    pixels, depth = project(transform(inverse(c2w), points), K)
    other, other_depth = project(transform(inverse(mirrored_c2w), mirrored_points), mirrored_K)
    torch.testing.assert_close(other_depth, depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other[:, 0], size[1] - pixels[:, 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other[:, 1], pixels[:, 1], rtol=1e-3, atol=1e-3)
    assert float(torch.linalg.det(mirrored_c2w[:3, :3])) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_a_rolled_camera_sees_the_same_world_in_the_turned_picture(turns: int) -> None:
    size = (20, 30)
    K = centred_intrinsics(torch.tensor(25.0), size)
    K[0, 2] += 2.5
    K[1, 1] *= 1.2
    c2w = se3_exp(torch.tensor([0.3, -0.2, 0.5, 0.1, 0.4, -0.2]))
    depth = 1 + torch.rand(size)
    points = transform(c2w, unproject(depth, K).reshape(-1, 3)).reshape(*size, 3)
    turned_K, turned_c2w = turn_cameras(K, c2w, size, turns)
    seen = transform(turned_c2w, unproject(depth.rot90(turns, (0, 1)), turned_K).reshape(-1, 3))
    torch.testing.assert_close(seen, points.rot90(turns, (0, 1)).reshape(-1, 3), rtol=1e-4, atol=1e-4)


def test_colours_vary_but_stay_colours() -> None:
    rgb = torch.rand(2, 3, 8, 8)
    first = vary_colours(rgb, np.random.default_rng(1))
    assert torch.equal(first, vary_colours(rgb, np.random.default_rng(1)))
    changes = [(vary_colours(rgb, np.random.default_rng(seed)) - rgb).abs().mean() for seed in range(20)]
    assert max(changes) > 0.05
    assert first.min() >= 0
    assert first.max() <= 1
