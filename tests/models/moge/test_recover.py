import pytest
import torch

from geo4d.models.moge.model import view_plane
from geo4d.models.moge.recover import recover_focal_shift


def pinhole(focal, shift, size=(48, 64), seed=0):
    """Points of a bumpy wall whose z has lost ``shift``."""
    depth = 3 + torch.rand(1, *size, generator=torch.Generator().manual_seed(seed))
    xy = view_plane(size, size[1] / size[0], "cpu") / focal * depth[..., None]
    return torch.cat([xy, depth[..., None] - shift], dim=-1)


@pytest.mark.parametrize("solver", ["converged", "published"])
def test_recorded_solutions(solver, golden):
    data = golden("focal_shift")
    for suffix, mask in (("", data["mask"]), ("_nomask", None)):
        focal, shift = recover_focal_shift(data["points"], mask, solver=solver)
        assert (focal - data[f"focal{suffix}"]).abs().max() < 1e-3
        assert (shift - data[f"shift{suffix}"]).abs().max() < 1e-3
    shift = recover_focal_shift(data["points"], data["mask"], data["true_focal"], solver)[1]
    assert (shift - data["shift_given_true_focal"]).abs().max() < 1e-3


@pytest.mark.parametrize(("focal", "shift"), [(0.6, 0.0), (1.2, 0.7), (1.2, -4.0), (2.5, 2.9), (1.0, 20.0)])
def test_truth_is_found_even_far_from_zero(focal, shift):
    found_focal, found_shift = recover_focal_shift(pinhole(focal, shift))
    assert float(found_focal) == pytest.approx(focal, rel=1e-4)
    assert float(found_shift) == pytest.approx(shift, abs=1e-3)


def test_scale_of_the_points_does_not_matter():
    points = pinhole(1.3, 0.4) + 0.02 * torch.randn(1, 48, 64, 3, generator=torch.Generator().manual_seed(1))
    focal, shift = recover_focal_shift(points)
    for factor in (1e-3, 1e3):
        scaled_focal, scaled_shift = recover_focal_shift(factor * points)
        torch.testing.assert_close(scaled_focal, focal, rtol=1e-4, atol=0)
        torch.testing.assert_close(scaled_shift / factor, shift, rtol=1e-3, atol=1e-4)


def test_converged_is_never_worse_than_published():
    noise = torch.Generator().manual_seed(2)
    points = torch.cat([pinhole(1.0, 0.5, seed=s) for s in range(4)])
    points = points + 0.1 * torch.randn(points.shape, generator=noise)
    plane = view_plane((48, 64), 64 / 48, "cpu")

    def cost(focal, shift):
        depth = points[..., 2:] + shift[:, None, None, None]
        return (focal[:, None, None, None] * points[..., :2] / depth - plane).square().sum((1, 2, 3))

    converged = cost(*recover_focal_shift(points))
    published = cost(*recover_focal_shift(points, solver="published"))
    assert (converged <= published * (1 + 1e-3)).all()


@pytest.mark.parametrize("solver", ["converged", "published"])
def test_too_few_points(solver):
    points = pinhole(1.2, 0.3).expand(3, -1, -1, -1).clone()
    mask = torch.ones(3, 48, 64, dtype=torch.bool)
    mask[1] = False
    points[2] = torch.nan
    focal, shift = recover_focal_shift(points, mask, solver=solver)
    assert focal[1:].tolist() == [1, 1]
    assert shift[1:].tolist() == [0, 0]
    assert float(focal[0]) == pytest.approx(1.2, rel=1e-2)
    known, _ = recover_focal_shift(points, mask, torch.tensor([0.9, 0.9, 0.9]), solver)
    assert known[1:].tolist() == pytest.approx([0.9, 0.9])


def test_points_on_one_ray_or_behind_the_camera_stay_finite():
    flat = torch.zeros(1, 8, 8, 3)
    flat[..., 2] = 1
    behind = pinhole(1.0, 5.0)
    for points in (flat, behind, -behind):
        assert all(torch.isfinite(value).all() for value in recover_focal_shift(points))
