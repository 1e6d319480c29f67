"""The average over time and the confidence, against a static wall whose depth is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d.fusion import AlignConfig, align
from geo4d.fusion.confidence import HIGH, LOW, ConfidenceCurve
from geo4d.fusion.dense import iter_dense
from geo4d.fusion.moving import rigid_flow
from geo4d.fusion.steady import SteadyConfig, iter_steady
from geo4d.geometry.cameras import pixel_grid
from geo4d.types import FrameMaps


@pytest.fixture
def still(make_wall):
    """A wall, its alignment with the true cameras, and its true depth as maps."""
    wall = make_wall(num_frames=16)
    alignment = align(wall.predictions, num_frames=16, known_c2w=wall.c2w)
    alignment = replace(alignment, c2w=wall.c2w.double(), intrinsics=wall.intrinsics.double())
    return wall, alignment


def maps_of(depth: torch.Tensor) -> list[FrameMaps]:
    return [FrameMaps(t, d, torch.full_like(d, 0.3)) for t, d in enumerate(depth.float())]


def test_flicker_goes_and_true_depth_stays(still) -> None:
    wall, alignment = still
    truth = wall.depth.float()
    factor = 1 + 0.05 * torch.randn(16, generator=torch.Generator().manual_seed(0))
    out = torch.stack([m.depth for m in iter_steady(alignment, maps_of(truth * factor[:, None, None]))])
    inner = (slice(None), slice(8, -8), slice(8, -8))
    before = (factor - factor.median()).abs().mean()
    error = (out / truth)[inner].log()
    assert (error - error.median()).abs().mean() < 0.4 * before
    same = torch.stack([m.depth for m in iter_steady(alignment, maps_of(truth))])
    assert (same / truth)[inner].log().abs().median() < 2e-3


def test_what_moves_keeps_its_own_depth_and_does_not_spoil_the_rest(still) -> None:
    wall, alignment = still
    depth = wall.depth.float().clone()
    depth[::2, 10:20, 10:20] *= 0.9
    moving = torch.zeros_like(depth)
    moving[:, 8:22, 8:22] = 1.0
    out = torch.stack([m.depth for m in iter_steady(alignment, maps_of(depth), lambda t: moving[t])])
    assert torch.equal(out[:, 10:20, 10:20], depth[:, 10:20, 10:20])


def test_something_hidden_is_not_averaged_in(still) -> None:
    wall, alignment = still
    depth = wall.depth.float().clone()
    depth[7] *= 0.4  # another surface in one frame
    out = {m.frame_index: m.depth for m in iter_steady(alignment, maps_of(depth))}
    assert (out[7] / depth[7]).log().abs().median() < 0.01
    inner = (slice(8, -8), slice(8, -8))
    assert (out[3] / depth[3])[inner].log().abs().max() < 0.02


def test_invalid_and_sky_stay_what_they_are(still) -> None:
    wall, alignment = still
    depth = wall.depth.float().clone()
    depth[3, :5], depth[3, 5:9] = torch.nan, torch.inf
    out = {m.frame_index: m.depth for m in iter_steady(alignment, maps_of(depth))}
    assert bool(torch.isnan(out[3][:5]).all())
    assert bool(torch.isposinf(out[3][5:9]).all())
    assert bool(torch.isfinite(out[4]).all())


def test_an_answer_does_not_depend_on_frames_out_of_reach(still) -> None:
    wall, alignment = still
    depth = wall.depth.float().clone()
    config = SteadyConfig(reach=2)
    first = [m.depth for m in iter_steady(alignment, maps_of(depth), config=config)]
    depth[9:] *= 1.05
    second = [m.depth for m in iter_steady(alignment, maps_of(depth), config=config)]
    assert all(torch.equal(a, b) for a, b in zip(first[:7], second[:7], strict=True))
    assert not torch.equal(first[7], second[7])


def plain_average(
    alignment, depth: torch.Tensor, moving: torch.Tensor, frame: int, near: list[int]
) -> torch.Tensor:
    """The average of one frame pixel by pixel, as the module's docstring says it."""
    config, own = SteadyConfig(), depth[frame]
    size = (own.shape[0], own.shape[1])
    total, mass = torch.zeros_like(own), torch.ones_like(own)
    for n in near:
        K, c2w = alignment.intrinsics.float(), alignment.c2w.float()
        flow, z = rigid_flow(own, K[frame], c2w[frame], K[n], c2w[n])
        place = (flow + pixel_grid(size) - 0.5).nan_to_num(nan=-9.0)
        corner = place.floor().long()
        log, known, still = torch.zeros_like(own), torch.zeros_like(own), torch.zeros_like(own)
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = corner[..., 0] + dx, corner[..., 1] + dy
                inside = (column >= 0) & (row >= 0) & (column < size[1]) & (row < size[0])
                at = (row.clamp(0, size[0] - 1), column.clamp(0, size[1] - 1))
                share = (1 - (place[..., 0] - column).abs()) * (1 - (place[..., 1] - row).abs()) * inside
                there = depth[n][at]
                log += share * torch.where(torch.isfinite(there), there, 1.0).log()
                known += share * torch.isfinite(there)
                still += share * (1 - 2 * moving[n][at]).clamp(0, 1)
        difference = torch.where((known > 0.99) & torch.isfinite(z), log - z.log(), 0.0)
        weight = (-0.5 * (difference / config.width) ** 2).exp() * (1 - 2 * moving[frame]).clamp(0, 1) * still
        weight = weight * ((known > 0.99) & torch.isfinite(z))
        total, mass = total + weight * difference, mass + weight
    return torch.where(torch.isfinite(own), own * (total / mass).exp(), own)


def test_the_average_is_that_of_a_plain_loop(still) -> None:
    wall, alignment = still
    generator = torch.Generator().manual_seed(1)
    depth = wall.depth.float() * (1 + 0.05 * torch.randn(wall.depth.shape, generator=generator))
    depth[3, :5], depth[4, 5:9] = torch.nan, torch.inf
    turned = alignment.c2w.clone()
    turned[9, :3, 0], turned[9, :3, 2] = -turned[9, :3, 0], -turned[9, :3, 2]  # sees nothing of the others
    alignment = replace(alignment, c2w=turned)
    moving = 0.8 * torch.rand(depth.shape, generator=generator)
    out = {m.frame_index: m.depth for m in iter_steady(alignment, maps_of(depth), lambda t: moving[t])}
    for frame in (0, 4, 9, 12):
        near = [n for n in range(max(0, frame - 10), min(16, frame + 11)) if n != frame]
        expected = plain_average(alignment, depth, moving, frame, near)
        # A hair's breadth decides whether a pixel on the border counts: nearly all, not all.
        apart = (out[frame] / expected).log().abs().nan_to_num(nan=0.0)
        assert torch.equal(torch.isfinite(out[frame]), torch.isfinite(depth[frame]))
        assert float((apart < 1e-4).float().mean()) > 0.995
        assert float(apart.max()) < 0.05


def test_the_published_form_is_left_alone(make_wall) -> None:
    wall = make_wall(num_frames=8)
    alignment = align(wall.predictions, num_frames=8, config=AlignConfig.published())
    plain = list(iter_dense(alignment, wall.predictions))
    for before, after in zip(plain, iter_steady(alignment, plain), strict=True):
        assert after is before


def test_confidence_is_a_probability_that_falls_with_every_sign() -> None:
    curve = ConfidenceCurve(-3.0, (-0.3, -0.3, -0.6), 0.5)
    low = torch.full((3, 1, 1), LOW)
    best = float(curve(low))
    assert 0.5 < best <= 1
    for sign in range(3):
        worse = low.clone()
        worse[sign] = HIGH
        assert float(curve(worse)) < best
    unknown = low.clone()
    unknown[2] = torch.nan
    assert float(curve(unknown)) == pytest.approx(1 / (1 + np.exp(3.0 + 0.6 * LOW - 0.5)))
