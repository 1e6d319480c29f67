from dataclasses import replace

import numpy as np
import pytest
import torch

import geo4d
from geo4d.errors import DoubtfulResult
from geo4d.models.base import PredictorInfo, remark_on_width
from geo4d.results.verdict import judge_frames, judge_result
from geo4d.run.plan import RunPlan
from tests.support.truth import BoxWorld, TruthPredictor


def frames(usable: int, of: int) -> np.ndarray:
    return np.arange(of) < usable


@pytest.mark.parametrize("usable", [5, 7, 10])
def test_a_film_that_fades_in_is_no_failure(usable):
    verdict = judge_frames(frames(usable, 10), {})
    assert verdict.problems == ()
    verdict.require(keep_going=False)
    said = "\n".join(verdict.lines())
    assert said.startswith("verdict: usable")
    assert ("not reliable" in said) == (usable < 10)


@pytest.mark.parametrize("usable", [0, 4])
def test_a_bad_half_is_one(usable):
    verdict = judge_frames(frames(usable, 10), {})
    assert verdict.lines() == [f"verdict: doubtful: only {usable} of 10 frames are reliable"]
    with pytest.raises(DoubtfulResult, match=r"only . of 10 frames are reliable; .*--keep-going"):
        verdict.require(keep_going=False)
    verdict.require(keep_going=True)


def test_values_that_are_not_finite_are_a_problem_however_few():
    verdict = judge_frames(frames(10, 10), {str(n): {} for n in range(12)})
    assert "in 12 windows (0, 1, 2, 3, 4, 5, 6, 7, ...)" in verdict.problems[0]


@pytest.mark.parametrize("stored", [False, True])
def test_the_verdict_on_a_result_is_that_of_its_diagnostics(tmp_path, stored):
    world = BoxWorld((24, 40))
    video = torch.stack([world.rgb(t) for t in range(12)])
    model = TruthPredictor(world, length=8, stride=2, nan_windows=(1,))
    result = geo4d.reconstruct(video, tmp_path / "out", model=model, tries=0, output_size="model")
    if stored:
        result = geo4d.load(tmp_path / "out")
    assert judge_result(result).problems == ("the model gave values that are not finite in 1 windows (1)",)


def test_what_a_model_says_of_its_weights_stands_in_plan_and_verdict(tmp_path) -> None:
    assert remark_on_width(320, 320) == ""
    world = BoxWorld((24, 40))
    video = torch.stack([world.rgb(t) for t in range(4)])

    class Narrow(TruthPredictor):
        @property
        def info(self) -> PredictorInfo:
            return replace(super().info, remark=remark_on_width(64, 320))

    model = Narrow(world, length=4, stride=2)
    plans: list[RunPlan] = []
    geo4d.reconstruct(video, tmp_path / "out", model=model, output_size="model", on_plan=plans.append)
    assert any(
        line.startswith("note     the network has 64 of the 320 channels") for line in plans[0].lines()
    )
    verdict = judge_result(geo4d.load(tmp_path / "out"))
    assert verdict.lines()[:2] == ["verdict: usable", model.info.remark]


def test_frames_without_picture_or_camera_are_counted() -> None:
    shots = [
        {"start": 0, "stop": 6, "kind": "unknown", "statement": "nothing"},
        {
            "start": 6,
            "stop": 10,
            "kind": "rotation",
            "focal_assumed": True,
            "statement": "frames 6-9: the camera only turns; assumed",
        },
    ]
    verdict = judge_frames(frames(4, 10), {}, without_picture=[0, 1], motion=shots)
    assert verdict.problems == ("only 4 of 10 frames are reliable",)
    assert verdict.remarks == (
        "2 of 10 frames have no usable picture",
        "no camera explains the motion of 6 of 10 frames",
        "frames 6-9: the camera only turns; assumed",
    )
    assert judge_frames(frames(1, 1), {}, motion=[{**shots[0], "stop": 1}]).remarks == ()


def test_a_zoom_is_said_though_nothing_about_it_is_assumed() -> None:
    shot = {
        "start": 0,
        "stop": 10,
        "kind": "parallax",
        "statement": "frames 0-9: the lens zooms",
        "zoom": True,
    }
    assert judge_frames(frames(10, 10), {}, motion=[shot]).remarks == ("frames 0-9: the lens zooms",)
    assert judge_frames(frames(10, 10), {}, motion=[{**shot, "zoom": False}]).remarks == ()


def test_depth_of_pictures_alone_is_said() -> None:
    remarks = judge_frames(frames(10, 10), {}, relative_windows=(2, 5)).remarks
    assert len(remarks) == 1
    assert "in 2 of 5 windows the camera's motion tells nothing about depth" in remarks[0]
    assert judge_frames(frames(10, 10), {}, relative_windows=(0, 5)).remarks == ()
