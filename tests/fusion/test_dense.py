import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d.fusion import align, iter_dense
from geo4d.fusion.dense import fuse_pixels, iter_depth


def test_pixels_reach_the_brute_force_minimum():
    generator = torch.Generator().manual_seed(0)
    pixels, windows = 400, 3
    rays = torch.cat([0.4 * torch.randn(2, pixels, generator=generator), torch.ones(1, pixels)])
    depth = 1 + 2 * torch.rand(pixels, generator=generator)
    points = depth * rays + 0.05 * torch.randn(windows, 3, pixels, generator=generator)
    points[1, :, :50] += 1.0  # one window is far off
    weight = 10 * torch.rand(windows, pixels, generator=generator)
    aligned = 1 / depth + 0.05 * torch.randn(windows, pixels, generator=generator)
    disparity_weight = 2 * torch.rand(windows, pixels, generator=generator)
    weight[:, :30] = 0  # disparity alone
    disparity_weight[:, 30:60] = 0  # points alone
    found, distance = fuse_pixels(rays, points, weight, aligned, disparity_weight)

    def cost(d: torch.Tensor) -> torch.Tensor:
        value = (weight * (d[..., None, None, :] * rays - points).norm(dim=-2)).sum(-2)
        return value + (disparity_weight * (1 / d[..., None, :] - aligned).abs()).sum(-2)

    grid = torch.linspace(0.3, 5, 4000)[:, None].expand(-1, pixels)
    best = torch.stack([cost(row) for row in grid]).amin(0)
    excess = (cost(found) - best) / best.clamp(min=1e-3)
    assert float(excess.max()) < 0.02
    assert float(excess.mean()) < 1e-3
    assert (distance[:30] == 0).all()


def test_frames_do_not_depend_on_where_the_iteration_starts(make_wall):
    wall = make_wall(num_frames=16, noise=0.01)
    alignment = align(wall.predictions, num_frames=16)
    everything = {m.frame_index: m for m in iter_dense(alignment, wall.predictions)}
    assert sorted(everything) == list(range(16))
    for start in (5, 9):
        for maps in iter_dense(alignment, wall.predictions, frames=range(start, start + 3)):
            same = everything[maps.frame_index]
            assert torch.equal(maps.depth, same.depth)
            assert torch.equal(maps.confidence, same.confidence)
            assert torch.equal(maps.dynamic, same.dynamic)


def test_every_window_is_read_once_and_let_go(make_wall):
    """Frame by frame, only windows that a frame needs, or a later one will, are alive."""
    windows = [list(range(s, s + 8)) for s in range(0, 41, 2)]
    wall = make_wall(num_frames=48, size=(6, 8), windows=windows, noise=0.01)
    alignment = align(wall.predictions, num_frames=48)
    loads: list[weakref.ref] = []
    reads: list[int] = []

    class OnDisk(Sequence):
        def __len__(self):
            return len(windows)

        def __getitem__(self, index):
            reads.append(index)
            loaded = replace(wall.predictions[index])
            loads.append(weakref.ref(loaded))
            return loaded

    most = 0
    for _ in iter_depth(alignment, OnDisk()):
        gc.collect()
        most = max(most, sum(load() is not None for load in loads))
    assert most <= 6  # four see a frame; one more waits, and one is on its way
    assert len(reads) <= len(windows) + 10  # the type checks of the test run peek as well


def test_confidence_falls_with_the_error(make_wall):
    wall = make_wall(num_frames=16, noise=0.02)
    noisy = torch.zeros(24, 36, dtype=torch.bool)
    noisy[:, 18:] = True
    generator = torch.Generator().manual_seed(1)
    for p in wall.predictions:
        p.point_map[:, noisy] += 0.15 * torch.randn(p.point_map[:, noisy].shape, generator=generator)
        p.point_uncertainty[:, noisy] = 0.15
    alignment = align(wall.predictions, num_frames=16)
    for maps in iter_dense(alignment, wall.predictions, frames=[6, 9], with_moving=False):
        assert float(maps.confidence[noisy].mean()) < 0.7 * float(maps.confidence[~noisy].mean())


def test_sky_is_at_infinity_where_windows_agree_on_it(make_wall):
    wall = make_wall(num_frames=16, noise=0.005)
    changed = []
    for p in wall.predictions:
        valid, sky = p.valid.clone(), torch.zeros_like(p.valid)
        disparity = p.disparity.clone()
        sky[:, :6] = True
        valid[:, :6] = False
        disparity[:, :6] = -0.02
        changed.append(replace(p, valid=valid, sky=sky, disparity=disparity))
    alignment = align(changed, num_frames=16)
    for maps in iter_dense(alignment, changed, frames=[8], with_moving=False):
        assert torch.isposinf(maps.depth[:6]).all()
        assert torch.isfinite(maps.depth[6:]).all()
        agreeing = sum(8 in p.frame_indices.tolist() for p in changed)
        assert torch.allclose(maps.confidence[:6], torch.tensor(agreeing / (agreeing + 1)))


def test_moving_box_is_found(make_wall):
    wall = make_wall(num_frames=24, size=(32, 48), noise=0.005, moving_box=True)
    alignment = align(wall.predictions, num_frames=24)
    estimate = np.stack([m.dynamic.numpy() for m in iter_dense(alignment, wall.predictions)]) > 0.5
    truth = wall.dynamic.numpy()
    middle = slice(8, 16)
    overlap = (estimate[middle] & truth[middle]).sum() / (estimate[middle] | truth[middle]).sum()
    assert overlap > 0.6
    static = make_wall(num_frames=24, size=(32, 48), noise=0.005)
    alignment = align(static.predictions, num_frames=24)
    assert (
        np.mean([float((m.dynamic > 0.5).float().mean()) for m in iter_dense(alignment, static.predictions)])
        < 0.02
    )


def test_other_predictions_are_refused(make_wall):
    wall = make_wall()
    alignment = align(wall.predictions, num_frames=16)
    with pytest.raises(ValueError, match="predictions of the alignment"):
        next(iter_depth(alignment, wall.predictions[:2]))
