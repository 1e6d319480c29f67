import pytest
import torch

from geo4d.fusion.alignment import AlignConfig
from geo4d.fusion.judge import Selection, _reasons_against_disparity, window_residual
from geo4d.fusion.objective import SampledObjective
from geo4d.fusion.pixel_terms import Optics, Weights
from geo4d.fusion.samples import take_samples
from geo4d.fusion.start_maps import DisparityFits
from geo4d.fusion.variables import number_columns
from tests.support.objectives import random_variables


def fits(scale, error, share) -> DisparityFits:
    scale, error, share = (torch.tensor(values, dtype=torch.float64) for values in (scale, error, share))
    return DisparityFits(scale, torch.zeros_like(scale), error, share)


def reasons(**changes) -> dict[int, str]:
    good = {"scale": [1.0, 1.1, 0.9, 1.0], "error": [0.02, 0.02, 0.02, 0.02], "share": [0.9, 0.9, 0.9, 0.9]}
    values = {name: [changes.get(name, old[0])] + old[1:] for name, old in good.items()}
    return _reasons_against_disparity(fits(**values), AlignConfig())


def test_good_disparities_have_nothing_against_them() -> None:
    assert reasons() == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"error": float("nan")}, "no pixels"),
        ({"scale": -0.1}, "not positive"),
        ({"scale": 0.0}, "not positive"),
        ({"share": 0.0}, "only 0% of pixels"),
        ({"error": 5.0}, "error far above"),
        ({"scale": 0.2}, "scale far below"),
    ],
)
def test_each_fault_is_named(changes, why) -> None:
    found = reasons(**changes)
    assert list(found) == [0]
    assert why in found[0]


def test_the_first_reason_is_the_plainest() -> None:
    assert "no pixels" in reasons(error=float("nan"), scale=-1.0, share=0.0)[0]


def test_nothing_but_points_takes_part() -> None:
    bad = torch.tensor([False, True])
    chosen = Selection.points_only(bad, 3)
    assert torch.equal(chosen.bad, bad)
    assert not chosen.disparity.any()
    assert chosen.trajectory.shape == (3,)
    assert not chosen.trajectory.any()


def test_a_windows_residual_is_its_median_distance_in_its_own_unit(make_wall) -> None:
    wall = make_wall(num_frames=12, size=(12, 16), noise=0.05)
    samples = take_samples(
        wall.predictions, num_frames=12, size=None, num_samples=40, weight_limit=10, min_disparity=0.05
    )
    samples.weight[samples.window == 1] = 0  # no point of the second window is valid
    free = torch.ones(2, dtype=torch.bool)
    columns = number_columns(
        12, samples.window_frames, tuple(t.frames for t in samples.trajectories), free_windows=free,
        free_disparity=free, free_trajectory=free,
    )  # fmt: skip
    weights = Weights(torch.ones(2).double(), torch.zeros(2).double(), torch.zeros(2).double(), 0.0)
    optics = Optics(torch.tensor([[8.0, 6.0]]).double().expand(12, 2), torch.ones(12).double())
    objective = SampledObjective(samples, optics, weights, columns, None)
    view = objective.view(random_variables(12, 2, 2, samples.pixels.shape[2]), 1e-3, num_polish=0)
    found = window_residual(samples, view)
    mine = (samples.window == 0)[:, None] & (samples.weight > 0)
    expected = float(view.distance[mine].median()) / float(view.variables.window_scale[0])
    assert float(found[0]) == pytest.approx(expected, rel=1e-6)
    assert found[1].isnan()
