from itertools import pairwise

import numpy as np
import torch

from geo4d.video.shots import ShotConfig
from tests.support.shots import find_shots


def scene(seed: int, count: int, speed: float = 0.5) -> list[torch.Tensor]:
    """A textured picture that slides by."""
    rng = np.random.default_rng(seed)
    base = rng.random(3) * 0.5
    coarse = torch.from_numpy(rng.random((1, 3, 6, 24)) * 0.5).float()
    wide = torch.nn.functional.interpolate(coarse, size=(36, 256), mode="bilinear")[0].permute(1, 2, 0)
    picture = wide + torch.from_numpy(base).float()
    return [picture[:, int(speed * t) : int(speed * t) + 64].clamp(0, 1) for t in range(count)]


def test_cuts_are_found_where_scenes_meet():
    frames = scene(0, 20) + scene(1, 12) + scene(2, 30, speed=3)
    assert find_shots(frames) == [(0, 20), (20, 32), (32, 62)]


def test_fast_motion_is_no_cut():
    assert find_shots(scene(3, 40, speed=4)) == [(0, 40)]


def test_a_flash_is_no_cut():
    frames = scene(4, 30)
    frames[15] = torch.ones_like(frames[15])
    assert find_shots(frames) == [(0, 30)]


def test_noise_and_a_still_picture_are_no_cuts():
    still = scene(5, 1) * 20
    assert find_shots(still) == [(0, 20)]
    generator = torch.Generator().manual_seed(0)
    assert find_shots([torch.rand(20, 30, 3, generator=generator) for _ in range(20)]) == [(0, 20)]


def test_short_videos():
    assert find_shots([]) == []
    assert find_shots(scene(0, 1)) == [(0, 1)]
    assert find_shots(scene(0, 3)) == [(0, 3)]
    config = ShotConfig(min_length=1)
    assert find_shots([*scene(0, 1), *scene(1, 1)], config) == [(0, 1), (1, 2)]


def test_shots_cover_all_frames_in_order():
    frames = scene(0, 9) + scene(1, 2) + scene(2, 9)
    shots = find_shots(frames)
    assert shots[0][0] == 0
    assert shots[-1][1] == 20
    assert all(a[1] == b[0] for a, b in pairwise(shots))
    assert all(end - start >= 4 for start, end in shots)
