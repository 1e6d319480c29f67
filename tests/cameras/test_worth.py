"""What a solution is worth, where there is hardly anything to judge it by."""

from dataclasses import replace

import pytest
import torch

from geo4d.cameras import solve
from geo4d.cameras.bundle import bundle_adjust
from geo4d.cameras.judge import DepthJudgement
from geo4d.cameras.pieces import NOT_EXPLAINED
from geo4d.cameras.problem import shot_problem
from geo4d.cameras.solve import fit_cameras
from geo4d.cameras.types import CameraSolveConfig
from geo4d.cameras.worth import carries_depth, judge_shot_depth, zoom_gain
from tests.support.adjustments import problem as adjustable
from tests.support.tracks import path, simulated_tracks


def test_without_a_still_point_nothing_is_judged_and_the_cameras_are_unknown(monkeypatch) -> None:
    """Short tracks of which none fits: a run that ended with an error of torch about an empty maximum."""
    plain, asked = solve.judge_shot_depth, []

    def nothing_is_still(problem, view, refined):
        asked.append(view.num_points)
        return plain(problem, view, replace(refined, error=torch.full_like(refined.error, torch.inf)))

    monkeypatch.setattr(solve, "judge_shot_depth", nothing_is_still)
    motion = fit_cameras(simulated_tracks(path()))
    assert asked
    assert motion.shots[0].kind == "unknown"
    assert NOT_EXPLAINED in motion.shots[0].statement
    assert judge_shot_depth is plain


@pytest.mark.parametrize(("zoom", "gain", "moves"), [(False, 10, True), (True, 10, False), (True, 40, True)])
def test_a_path_beside_a_zoom_must_explain_more_than_one_without(zoom, gain, moves) -> None:
    """A camera that turns and zooms is the other explanation then, and its focal lengths are those that count."""
    problem = shot_problem(simulated_tracks(path()), 0, 14, None, None, CameraSolveConfig(zoom=zoom))
    judged = DepthJudgement(
        gain=gain,
        parallax=5.0,
        noise=0.1,
        inflation=2.0,
        depth_spread=0.05,
        camera_error=0.1,
        moving_focal=(6.0, 0.01),
        turning_focal=(6.0, 0.01),
        readout=0.0,
        turned=bundle_adjust(*adjustable()),
        moving_zoom=11.0,
        turning_zoom=70.0,
    )
    assert carries_depth(problem, judged) is moves
    assert not carries_depth(problem, replace(judged, depth_spread=0.5))
    assert zoom_gain(problem, judged) == (11.0 if moves else 70.0)
