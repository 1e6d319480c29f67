import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.training.tasks.geometrycrafter.priors import StandInPrior, StoredPriors
from geo4d.training.tasks.geometrycrafter.scores import window_scores


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
