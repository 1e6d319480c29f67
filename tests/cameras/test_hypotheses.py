import torch

from geo4d.cameras import hypotheses
from geo4d.cameras.hypotheses import first_hypothesis
from geo4d.cameras.keyframes import denser_frames, view_of
from geo4d.cameras.problem import shot_problem
from geo4d.cameras.types import CameraSolveConfig
from tests.support.adjustments import centre_error
from tests.support.tracks import path, simulated_tracks

FRAMES = 14


def first(scene, **config):
    """The first hypothesis of a shot whose frames are all keyframes."""
    problem = shot_problem(simulated_tracks(scene), 0, FRAMES, None, None, CameraSolveConfig(**config))
    view = view_of(problem, torch.arange(FRAMES), span=36)
    dense = view_of(problem, denser_frames(view.keyframes, 3), span=108, least=3)
    return first_hypothesis(problem, view, dense)


def test_one_focal_length_is_searched_once_and_the_cameras_are_right(monkeypatch) -> None:
    plain, asked = hypotheses.find_start, []
    monkeypatch.setattr(hypotheses, "find_start", lambda *a, **k: asked.append(k) or plain(*a, **k))
    scene = path()
    found = first(scene)
    assert [one["zoom"] for one in asked] == [False]
    assert found.kind == "parallax"
    assert not found.may_zoom
    assert centre_error(found.refined.state.w2c, torch.linalg.inv(scene.c2w)) < 0.01


def test_a_zoom_is_searched_from_many_sides_and_the_best_one_is_right(monkeypatch) -> None:
    plain, asked = hypotheses.find_start, []
    monkeypatch.setattr(hypotheses, "find_start", lambda *a, **k: asked.append(k) or plain(*a, **k))
    scene = path(zoom=1.6)
    found = first(scene, zoom=True)
    assert [one["zoom"] for one in asked] == [False, True, False, False, False, False]
    assert len({one["focal"] for one in asked}) == 5  # unknown twice, then four
    change = found.refined.state.log_focal - scene.intrinsics[:, 0, 0].double().log()
    assert float((change - change.mean()).abs().max()) < 0.01
    assert not found.may_zoom  # it does already


def test_only_where_it_is_open_is_a_zoom_looked_for() -> None:
    zoomed = path(zoom=1.6)
    assert first(zoomed).may_zoom
    assert not first(zoomed, zoom=False).may_zoom


def test_a_long_zoom_is_searched_from_two_sides_only(monkeypatch) -> None:
    plain, asked = hypotheses.find_start, []
    monkeypatch.setattr(hypotheses, "find_start", lambda *a, **k: asked.append(k) or plain(*a, **k))
    monkeypatch.setattr(hypotheses, "MANY", FRAMES - 1)
    first(path(zoom=1.6), zoom=True)
    assert [one["zoom"] for one in asked] == [False, True]
