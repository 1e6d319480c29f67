"""Windows of a world that is known exactly, one of them spoilt, and how often it is asked for again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.config import make_config
from geo4d.errors import GeometryError
from geo4d.fusion.alignment import Alignment, find_bad_windows
from geo4d.run.align import align_windows
from geo4d.run.plan import RunPlan
from geo4d.run.predict import WindowSource, predict_windows
from geo4d.run.spool import Spool, SpooledPredictions
from geo4d.video.io import Video
from tests.support.truth import BoxWorld, TruthPredictor

WORLD = BoxWorld((24, 40))
WINDOWS = tuple(tuple(range(4 * i, 4 * i + 8)) for i in range(5))
NUM = 24


def aligned(
    folder: Path, predictor: TruthPredictor, **settings
) -> tuple[tuple[Alignment, SpooledPredictions, dict[int, int]], list[str]]:
    """What ``align_windows`` returns, and the stages that it told of."""
    plan = RunPlan(
        "boxes", NUM, 2.4, WORLD.size, WORLD.size, WORLD.size, ((0, NUM),), WINDOWS, predictor.info,
        "cpu", "float32", 0, None, 0, 0,
    )  # fmt: skip
    clip = Video(torch.stack([WORLD.rgb(t) for t in range(NUM)]), fps=10.0)
    source, spool, told = WindowSource(clip, plan, predictor, 0), Spool(folder, "float32"), []
    predict_windows(source, spool, lambda *_: None)
    config = make_config(**settings)
    return align_windows(source, spool, None, config, lambda stage, *_: told.append(stage)), told


def camera_error(alignment: Alignment) -> float:
    """Largest distance of a camera from the truth, share of the path, after one factor."""
    truth = torch.stack([WORLD.c2w(t) for t in range(NUM)]).double()
    truth = torch.linalg.inv(truth[0]) @ truth
    ours = torch.linalg.inv(alignment.c2w[0].double()) @ alignment.c2w.double()
    ours, truth = ours[:, :3, 3], truth[:, :3, 3]
    factor = (ours * truth).sum() / ours.square().sum()
    return float((factor * ours - truth).norm(dim=1).max() / truth.norm(dim=1).max())


def test_good_windows_are_not_asked_again(tmp_path: Path) -> None:
    (alignment, predictions, tries), told = aligned(tmp_path, TruthPredictor(WORLD, noise=0.005))
    assert tries == {}
    assert set(told) == {"align"}
    assert len(predictions) == len(WINDOWS)
    assert camera_error(alignment) < 0.02
    intrinsics = WORLD.intrinsics().double()
    np.testing.assert_allclose(alignment.intrinsics[:, 0, 0], float(intrinsics[0, 0]), rtol=0.02)


def test_a_spoilt_window_is_sampled_again_until_it_agrees(tmp_path: Path) -> None:
    (alignment, predictions, tries), told = aligned(tmp_path, TruthPredictor(WORLD, noise=0.005, spoilt=(2,)))
    assert tries == {2: 1}
    assert find_bad_windows(alignment) == []
    assert told.count("sample again") == 1
    assert camera_error(alignment) < 0.02
    again = Spool(tmp_path, "float32").read(2, 1)
    assert torch.equal(predictions[2].point_map, again.point_map)  # of the second try, not of the first


def test_without_tries_it_is_left_out(tmp_path: Path) -> None:
    predictor = TruthPredictor(WORLD, noise=0.005, spoilt=(2,))
    (alignment, _, tries), told = aligned(tmp_path, predictor, tries=0)
    assert tries == {}
    assert find_bad_windows(alignment) == [2]
    assert "sample again" not in told
    assert alignment.reliable.all()  # its frames lie in its neighbours too


class Stubborn(TruthPredictor):
    """Wrong in the same way at every try, as a model without noise is."""

    def predict(self, window, *, seed, **rest):
        return super().predict(window, seed=0, **rest)


def test_a_model_that_answers_the_same_is_asked_once_more_only(tmp_path: Path) -> None:
    predictor = Stubborn(WORLD, noise=0.005, spoilt=(2,))
    (alignment, _, tries), _ = aligned(tmp_path, predictor, tries=5)
    assert tries == {}
    assert find_bad_windows(alignment) == [2]
    tries_on_disk = [Spool(tmp_path, "float32").path(2, attempt).is_file() for attempt in range(3)]
    assert tries_on_disk == [True, True, False]


def test_a_window_that_disagrees_only_at_the_second_look_is_sampled_then(tmp_path: Path, monkeypatch) -> None:
    """Another window is sampled anew first; this one has no try 1 to be compared with."""
    verdicts = iter([[1], [2], []])
    monkeypatch.setattr("geo4d.run.align.find_bad_windows", lambda alignment: next(verdicts))
    (alignment, predictions, tries), _ = aligned(tmp_path, TruthPredictor(WORLD, noise=0.005), tries=3)
    assert tries == {1: 1, 2: 2}
    spool = Spool(tmp_path, "float32")
    assert spool.read(2, 1) is None
    assert torch.equal(predictions[2].point_map, spool.read(2, 2).point_map)
    assert camera_error(alignment) < 0.02


def test_nothing_usable_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    predictor = TruthPredictor(WORLD, nan_windows=tuple(range(len(WINDOWS))))
    with pytest.raises(GeometryError):
        aligned(tmp_path, predictor)
