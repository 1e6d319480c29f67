"""Depth and focal length count as far as the tracks carry them."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from geo4d.cameras import judge
from geo4d.cameras.judge import correlation_inflation
from geo4d.cameras.observations import Observations
from geo4d.cameras.solve import fit_cameras
from geo4d.tracks.types import Tracks

SIZE, FOCAL, FRAMES = (480, 640), 520.0, 14


def shaken(
    travel: float, amplitude: float = 0.12, seed: int = 3
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A hand-held camera: times in frames -> rotation vectors and centres."""
    rng = np.random.RandomState(seed)
    waves = rng.uniform(0.1, 0.5, (3, 6)), rng.uniform(0, 6.28, (3, 6)), rng.normal(0, amplitude / 2, (3, 6))

    def at(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rate, phase, size = waves
        values = (np.sin(times[..., None, None] * rate + phase) * size).sum(-2)
        return values[..., :3], travel * values[..., 3:] / amplitude

    return at


def rolling_tracks(
    travel: float,
    *,
    readout: float = 0.0,
    radial: float = 0.0,
    noise: float = 0.1,
    count: int = 200,
    seed: int = 0,
    wall: bool = False,
) -> Tracks:
    """Points at depths of 1.5 to 6 (or on one wall) through a lens whose rows are read one after the other."""
    generator = torch.Generator().manual_seed(seed)
    path = shaken(travel)
    u = torch.rand(count, 2, generator=generator, dtype=torch.float64).numpy() * [900, 700] - [450, 350]
    depth = 1.5 + 4.5 * torch.rand(count, 1, generator=generator, dtype=torch.float64).numpy()
    depth = 3.0 + 0 * depth if wall else depth
    world = np.concatenate([u / FOCAL, np.ones((count, 1))], 1) * depth
    start, origin = path(np.zeros(1))
    first = Rotation.from_rotvec(start[0]).as_matrix()
    world = world @ first.T + origin[0]
    times = np.broadcast_to(np.arange(FRAMES, dtype=float)[:, None], (FRAMES, count)).copy()
    for _ in range(5):  # the row that sees a point decides when it is seen
        vector, centre = path(times)
        turn = Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(FRAMES, count, 3, 3)
        camera = np.einsum("tpji,tpj->tpi", turn, world - centre)
        plane = camera[..., :2] / camera[..., 2:]
        uv = FOCAL * plane * (1 + radial * (plane**2).sum(-1, keepdims=True))
        times = np.arange(FRAMES)[:, None] + readout * np.clip(uv[..., 1] / SIZE[0], -0.5, 0.5)
    xy = torch.from_numpy(uv) + torch.tensor([SIZE[1] / 2, SIZE[0] / 2])
    xy = xy + noise * torch.randn(xy.shape, generator=generator, dtype=torch.float64)
    inside = torch.from_numpy(camera[..., 2] > 0.2) & (xy >= 0).all(-1)
    inside &= (xy[..., 0] < SIZE[1]) & (xy[..., 1] < SIZE[0])
    inside &= inside.sum(0) >= 3
    track, frame = inside.T.nonzero(as_tuple=True)
    _, track = track.unique(return_inverse=True)
    starts = torch.zeros(FRAMES, dtype=torch.bool)
    starts[0] = True
    return Tracks(track, frame, xy.transpose(0, 1)[inside.T].float(), FRAMES, SIZE, starts)


def test_a_turning_camera_read_row_by_row_through_a_bent_lens_gets_no_depth():
    motion = fit_cameras(rolling_tracks(0.0, readout=0.5, radial=-0.06))
    shot = motion.shots[0]
    assert shot.kind == "rotation"
    assert motion.c2w[:, :3, 3].abs().max() < 1e-9
    assert abs(math.log(shot.focal / FOCAL)) < max(3 * shot.focal_spread, 0.02)
    assert math.isinf(shot.depth_spread)


def test_a_small_translation_beyond_the_noise_keeps_its_depth_and_says_how_well_it_is_known():
    small = fit_cameras(rolling_tracks(0.01)).shots[0]
    large = fit_cameras(rolling_tracks(0.3)).shots[0]
    assert small.kind == large.kind == "parallax"
    assert large.depth_spread < small.depth_spread < 0.3
    assert large.camera_error > 0
    assert not large.focal_assumed


def test_a_focal_length_that_the_tracks_do_not_tell_is_assumed_and_said_to_be():
    shot = fit_cameras(rolling_tracks(0.0, noise=0.4, count=25, wall=True, radial=-0.08), config=None).shots[
        0
    ]
    if not shot.focal_assumed:  # a determined one must be right
        assert abs(math.log(shot.focal / FOCAL)) < 3 * shot.focal_spread
    still = rolling_tracks(0.0)
    still.xy[:] = still.xy[(still.frame == still.frame[0]).nonzero()[0]]
    xy = torch.rand(int(still.track.max()) + 1, 2, generator=torch.Generator().manual_seed(1))
    still.xy[:] = (xy * torch.tensor([600.0, 440.0]) + 20)[still.track]
    motion = fit_cameras(still)
    assert motion.shots[0].kind == "static"
    assert motion.shots[0].focal_assumed
    assert "is assumed" in motion.shots[0].statement
    assert motion.shots[0].focal == pytest.approx(0.87 * SIZE[1], rel=0.01)


def test_correlated_residuals_count_for_less():
    generator = torch.Generator().manual_seed(0)
    N, P = 20, 100
    camera, point = torch.arange(N).repeat(P), torch.arange(P).repeat_interleave(N)
    uv = torch.rand(P, 2, generator=generator, dtype=torch.float64).repeat_interleave(N, 0) * 400
    obs = Observations(camera, point, uv, torch.ones(N * P, dtype=torch.float64))
    white = 0.1 * torch.randn(P, N, 2, generator=generator, dtype=torch.float64)
    slow = white.clone()
    for t in range(1, N):
        slow[:, t] = 0.8 * slow[:, t - 1] + 0.6 * white[:, t]
    shared = white + 0.1 * torch.randn(1, N, 2, generator=generator, dtype=torch.float64)
    assert correlation_inflation(white.reshape(-1, 2), obs, 1.0) < 1.6
    assert correlation_inflation(slow.reshape(-1, 2), obs, 1.0) > 4
    assert correlation_inflation(shared.reshape(-1, 2), obs, 1.0) > 2


def test_wrong_tracks_do_not_decide_how_long_a_picture_is_read(monkeypatch):
    """A quarter of the points jumps about: the readout time of the others is found all the same, and taken."""
    found = []
    plain = judge.with_readout
    monkeypatch.setattr(judge, "with_readout", lambda *given: found.append(plain(*given)) or found[-1])
    tracks = rolling_tracks(0.0, readout=0.5)
    wrong = tracks.track % 4 == 0
    jumps = torch.randn(tracks.xy.shape, generator=torch.Generator().manual_seed(5)) * 25
    fit_cameras(replace(tracks, xy=torch.where(wrong[:, None], tracks.xy + jumps, tracks.xy)))
    assert found[-1].readout == pytest.approx(0.5, abs=0.1)
