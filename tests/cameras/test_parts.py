from dataclasses import replace

import pytest
import torch

from geo4d.cameras import parts
from geo4d.cameras.grow import grow
from geo4d.cameras.parts import _Hypothesis, try_other_parts
from geo4d.cameras.points import triangulate
from geo4d.cameras.refine import judge_state, refine
from geo4d.cameras.solve import fit_cameras
from geo4d.cameras.terms import BundleState
from geo4d.geometry.poses import so3_exp
from tests.support.adjustments import problem, wall
from tests.support.refined import FIXED
from tests.support.tracks import path, simulated_tracks, trajectory_error


def test_other_parts_leave_a_still_scene_as_it_is():
    truth, observations = problem(num_cameras=12, num_points=300, span=6, noise=0.05)
    good = refine(truth, observations, FIXED)
    assert try_other_parts(good, observations, FIXED, pixel_error=0.25) is good


def test_a_rigid_mover_with_half_of_the_tracks_does_not_become_the_world():
    # Half of the points turn and drift together, in a small part of the picture: as points they are as good a world
    # as the background, but the background has the larger area.
    scene = path(num_frames=12)
    still = simulated_tracks(scene, num_points=220)
    g = torch.Generator().manual_seed(3)
    body = (torch.rand(220, 3, generator=g, dtype=torch.float64) - 0.5) * 0.7
    steps = torch.arange(12, dtype=torch.float64)
    spin = so3_exp(torch.stack([0.03 * steps, -0.05 * steps, 0 * steps], 1))
    centre = torch.stack([0.4 + 0.05 * steps, 0 * steps, 3 - 0.04 * steps], 1)
    world = (spin[:, None] @ body[..., None])[..., 0] + centre[:, None]
    camera = (torch.linalg.inv(scene.c2w)[:, None, :3, :3] @ world[..., None])[..., 0]
    camera += torch.linalg.inv(scene.c2w)[:, None, :3, 3]
    xy = (camera @ scene.intrinsics[0].double().T)[..., :2] / camera[..., 2:]
    xy += 0.15 * torch.randn(xy.shape, generator=g, dtype=torch.float64)
    n = still.num_tracks
    both = type(still)(
        torch.cat([still.track, n + torch.arange(220).repeat_interleave(12)]),
        torch.cat([still.frame, torch.arange(12).repeat(220)]),
        torch.cat([still.xy, xy.transpose(0, 1).reshape(-1, 2).float()]),
        12,
        still.size,
        still.starts_shot,
    )
    ate, turn = trajectory_error(fit_cameras(both), scene)
    assert ate < 0.02
    assert turn < 1.0


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_run_is_tried_on_the_cameras_around_it_before_a_long_shot(monkeypatch, spoiled):
    w2c, observations = wall(120, noise=0.1, seed=0)
    num_points = int(observations.point.max()) + 1
    log_focal = torch.full((120,), 140.0, dtype=torch.float64).log()
    truth = BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, num_points))
    solution = truth
    if spoiled:  # cameras of another path, which explain little
        g = torch.Generator().manual_seed(0)
        w2c = w2c.clone()
        w2c[:, :3, 3] += 0.3 * torch.randn(120, 3, generator=g, dtype=torch.float64)
        solution = replace(truth, w2c=w2c)
    refined = judge_state(solution, observations)
    run = (50, 59)
    here = replace(truth, w2c=truth.w2c[50:59], log_focal=log_focal[50:59])
    right = _Hypothesis(1.0, run, here, 0.1, torch.ones(num_points, dtype=torch.bool))
    lengths = []

    def counted(state, *rest, **named):
        lengths.append(len(state.w2c))
        return grow(state, *rest, **named)

    monkeypatch.setattr(parts, "find_hypotheses", lambda *a, **k: [right])
    monkeypatch.setattr(parts, "grow", counted)
    found = try_other_parts(refined, observations, FIXED, pixel_error=0.25)
    if spoiled:  # it explains more there, and is grown over all
        assert lengths == [9 + 2 * 32, 120]
        assert found is not refined
        assert found.explained(0.1) > 0.7
    else:
        assert lengths == [9 + 2 * 32]
        assert found is refined
