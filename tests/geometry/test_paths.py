import pytest
import torch

from geo4d.geometry.paths import fit_path, poses_at
from geo4d.geometry.poses import rigid, similarity, so3_exp, transform


def path(n: int = 40, seed: int = 0) -> torch.Tensor:
    t = torch.linspace(0, 3, n, dtype=torch.float64)
    return torch.stack([torch.sin(t), 0.3 * torch.cos(2 * t), 0.5 * t], 1)


def turning(times: torch.Tensor) -> torch.Tensor:
    """Even motion: what lies between two poses is known."""
    axis = torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)
    return rigid(so3_exp(times[:, None] * axis), times[:, None] * torch.tensor([1.0, 2.0, -1.0]).double())


def test_even_motion_is_met_between_stamps_and_gaps_and_ends_stay_unknown() -> None:
    stamps = torch.tensor([0.0, 0.1, 0.2, 1.0, 1.1], dtype=torch.float64)
    times = torch.tensor([0.05, 0.2, 0.6, 1.003, 1.104, 1.2, -0.1], dtype=torch.float64)
    found = poses_at(stamps, turning(stamps), times, longest_gap_s=0.15, same_s=0.005)
    known = torch.isfinite(found).all(dim=(1, 2)).tolist()
    assert known == [True, True, False, True, True, False, False]
    torch.testing.assert_close(found[[0, 1, 3]], turning(times[[0, 1, 3]]))
    torch.testing.assert_close(found[4], turning(stamps[4:])[0])  # past the end: the pose of the same moment


def test_a_single_pose_serves_its_moment_alone() -> None:
    stamps = torch.tensor([2.0], dtype=torch.float64)
    found = poses_at(
        stamps, turning(stamps), torch.tensor([1.0, 2.001]).double(), longest_gap_s=9, same_s=0.005
    )
    assert torch.isnan(found[0]).all()
    torch.testing.assert_close(found[1], turning(stamps)[0])


def test_the_factor_of_a_similarity_comes_back() -> None:
    source = path()
    sim = similarity(
        torch.tensor(2.7, dtype=torch.float64),
        so3_exp(torch.tensor([0.4, -1.0, 0.3]).double()),
        torch.tensor([5.0, -2, 1]).double(),
    )
    fit = fit_path(source, transform(sim, source))
    assert fit.scale == pytest.approx(2.7, rel=1e-9)
    torch.testing.assert_close(fit.similarity, sim)
    assert fit.uncertainty < 1e-9
    assert fit.used.all()


def test_a_few_wild_positions_do_not_count() -> None:
    generator = torch.Generator().manual_seed(1)
    source = path()
    target = 3 * source + 0.005 * torch.randn(source.shape, generator=generator, dtype=torch.float64)
    target[[4, 17, 30]] += torch.tensor([4.0, -6.0, 5.0])
    fit = fit_path(source, target)
    assert fit.scale == pytest.approx(3, rel=3e-3)
    assert (~fit.used).nonzero()[:, 0].tolist() == [4, 17, 30]


def test_the_uncertainty_covers_the_error_of_noisy_paths() -> None:
    source = path()
    errors = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        drift = (0.03 * torch.randn(source.shape, generator=generator, dtype=torch.float64)).cumsum(0)
        fit = fit_path(source + drift, source)
        errors.append(abs(torch.tensor(fit.scale).log().item()) / fit.uncertainty)
    within = sum(error < 1 for error in errors) / len(errors)
    assert 0.5 < within < 0.95  # one standard deviation: 0.68


@pytest.mark.parametrize("still", ["source", "target"])
def test_a_path_that_stays_in_one_place_is_refused(still: str) -> None:
    moving, standing = path(), torch.ones(40, 3, dtype=torch.float64)
    pair = (standing, moving) if still == "source" else (moving, standing)
    with pytest.raises(ValueError, match="result" if still == "source" else "trajectory"):
        fit_path(*pair)
    with pytest.raises(ValueError, match="three positions"):
        fit_path(moving[:2], moving[:2])
