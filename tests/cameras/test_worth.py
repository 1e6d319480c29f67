"""What a solution is worth, where there is hardly anything to judge it by."""

from dataclasses import replace

import torch

from geo4d.cameras import solve
from geo4d.cameras.pieces import NOT_EXPLAINED
from geo4d.cameras.solve import fit_cameras
from geo4d.cameras.worth import judge_shot_depth
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
