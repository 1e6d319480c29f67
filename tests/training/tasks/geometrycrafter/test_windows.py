import itertools
import math

import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.geometry.cameras import unproject
from geo4d.models.geometrycrafter.decode import maps_to_points
from geo4d.training.tasks.geometrycrafter.clips import back_and_forth
from geo4d.training.tasks.geometrycrafter.maps import normalise_window
from geo4d.training.tasks.geometrycrafter.priors import StandInPrior, StoredPriors
from geo4d.training.tasks.geometrycrafter.scores import window_scores
from geo4d.training.tasks.geometrycrafter.windows import WindowBatches, WindowCut, cut_window

CUT = WindowCut((64, 64), (1, 3), zoom=1.5, seed=3)


def test_steps_have_one_length_and_resume_exactly(order) -> None:
    batches = WindowBatches(order(True), CUT, 2)
    whole = list(itertools.islice(batches(0, 0, 1), 8))
    assert {batch.num_frames for batch in whole} == {1, 2, 3}
    for batch in whole:
        assert batch.rgb.shape == (2, batch.num_frames, 3, 64, 64)
        assert batch.prior_depth.shape == batch.depth.shape
    for kept, again in zip(whole[5:], batches(5, 0, 1), strict=False):
        assert kept.names == again.names
        assert torch.equal(kept.rgb, again.rgb)
        assert torch.equal(kept.prior_depth.nan_to_num(-1), again.prior_depth.nan_to_num(-1))
    halves = [next(batches(4, rank, 2)) for rank in (0, 1)]
    assert halves[0].names + halves[1].names == whole[4].names
    assert torch.equal(torch.cat([half.rgb for half in halves]), whole[4].rgb)
    assert [part.names for part in whole[4].split(2)] == [(name,) for name in whole[4].names]
    assert whole[4].names[0] in whole[4].describe()


def test_resizing_moves_the_focal_length_with_the_picture(wall) -> None:
    clip = wall(1)
    for zoom in (1.0, 1.5):
        window = cut_window(clip, None, np.arange(2), (64, 64), zoom, 0)
        # (64, 96) covers (64, 64) as it is; zoomed in it is 96 x 144, of which the middle stays.
        assert window.intrinsics[0, 0, 0, 0] == pytest.approx(80 * zoom, rel=0.01)
        assert window.intrinsics[0, 0, 0, 2] == pytest.approx(32, abs=0.5)
        points = unproject(window.depth[0], window.intrinsics[0])
        # The same wall: depth at the middle does not change, and neither does the world's position of it.
        middle = float(clip.depth[0, 32, 48])
        assert float(points[0, 32, 32, 2]) == pytest.approx(middle, rel=0.02)


def test_a_short_clip_is_played_back_and_forth() -> None:
    assert back_and_forth(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert back_and_forth(1, 3).tolist() == [0, 0, 0]


def test_true_maps_decode_to_the_true_points(wall) -> None:
    """Normalised maps through inference's own decoder of maps: points of the scene, over their mean depth."""
    clip = wall(2)
    window = cut_window(clip, None, np.arange(3), (64, 64), 1.0, 0)
    found = normalise_window(window.depth[0], window.intrinsics[0])
    truth = unproject(window.depth[0], window.intrinsics[0])
    valid = torch.isfinite(window.depth[0])
    assert torch.equal(found.valid, valid)
    assert found.scale == pytest.approx(float(window.depth[0][valid].mean()), rel=1e-5)
    points = maps_to_points(found.maps, found.maps.theta[:, 0, 0]) * found.scale
    assert float((points - truth)[valid].abs().max()) < 5e-3
    height, width = window.depth.shape[-2:]
    theta = math.hypot((width - 1) / 2 / 80, (height - 1) / 2 / 80)
    assert float(found.maps.theta[0, 0, 0]) == pytest.approx(theta, rel=1e-4)
    assert bool((found.maps.mask[~valid] == -1).all())


def test_the_stand_in_is_wrong_in_the_stated_way_and_always_the_same(wall) -> None:
    clip = wall(3, num_frames=6)
    prior = StandInPrior()(clip)
    assert np.array_equal(prior.depth, StandInPrior()(clip).depth, equal_nan=True)
    assert not np.array_equal(prior.depth, StandInPrior(seed=1)(clip).depth, equal_nan=True)
    depth, truth = torch.from_numpy(prior.depth), torch.from_numpy(clip.depth)
    scores = window_scores(depth, truth)
    assert 0.02 < scores["abs_rel"] < 0.3
    assert scores["change"] > 0.02
    exact = StandInPrior(drift=0, focal=0, blur=1e-6, noise=0)(clip)
    assert window_scores(torch.from_numpy(exact.depth), truth)["abs_rel"] < 1e-3
    assert np.isnan(prior.depth[:, :3]).all()


def test_priors_are_computed_once_and_never_mixed_up(wall, tmp_path) -> None:
    class Counting(StandInPrior):
        calls = 0

        def __call__(self, clip):
            Counting.calls += 1
            return super().__call__(clip)

    clip = wall(4)
    kept = StoredPriors(tmp_path / "priors", Counting(), "clips-a")
    first, again = kept(clip), kept(clip)
    assert Counting.calls == 1
    fresh = StandInPrior()(clip)
    assert np.array_equal(np.isnan(fresh.depth), np.isnan(again.depth))
    np.testing.assert_allclose(again.depth, fresh.depth, rtol=1e-4)
    np.testing.assert_allclose(first.intrinsics, fresh.intrinsics)
    with pytest.raises(InputError, match="use another folder"):
        StoredPriors(tmp_path / "priors", Counting(), "clips-b")
    with pytest.raises(InputError, match="use another folder"):
        StoredPriors(tmp_path / "priors", Counting(seed=2), "clips-a")
    next((tmp_path / "priors").glob("*.npz")).write_bytes(b"not a file of arrays")
    with pytest.raises(InputError, match="delete it"):
        kept(clip)


def test_scores_against_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 1 + torch.rand(3, 4, 5, generator=generator)
    predicted = 2 * truth * (1 + 0.1 * torch.rand(3, 4, 5, generator=generator))
    truth[0, 0, 0], predicted[1, 1, 1] = torch.inf, torch.nan
    known = [
        index for index in itertools.product(range(3), range(4), range(5))
        if math.isfinite(truth[index]) and math.isfinite(predicted[index])
    ]  # fmt: skip
    ratios = sorted(float(predicted[index] / truth[index]) for index in known)
    middle = ratios[(len(ratios) - 1) // 2]
    errors = [abs(ratio / middle - 1) for ratio in ratios]
    steps = [
        abs(math.log(float(predicted[t + 1, r, c] / truth[t + 1, r, c]) / float(predicted[t, r, c] / truth[t, r, c])))
        for t, r, c in known if (t + 1, r, c) in known
    ]  # fmt: skip
    found = window_scores(predicted, truth)
    assert found["abs_rel"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert found["change"] == pytest.approx(sum(steps) / len(steps), rel=1e-4)
    assert window_scores(3 * truth, truth) == pytest.approx({"abs_rel": 0, "change": 0}, abs=1e-6)
