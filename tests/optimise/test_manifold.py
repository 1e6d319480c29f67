import torch

from geo4d.optimise.manifold import mirror_of, moved_on_sphere, tangent_of


def unit(count: int) -> torch.Tensor:
    points = torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[0] = torch.tensor([0.0, 0.0, 1.0, 0.0])  # at infinity
    points[1] = torch.tensor([0.0, 0.0, 0.0, -1.0])
    return points / points.norm(dim=1, keepdim=True)


def test_steps_stay_on_the_sphere_and_no_step_is_no_change():
    points = unit(20)
    step = 0.3 * torch.randn(3, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = moved_on_sphere(points, step)
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(moved_on_sphere(points, 0 * step), points)
    # the three directions are unit vectors, at right angles to the point: the angle is the length of the step
    cosine = (moved * points).sum(1)
    torch.testing.assert_close(torch.arccos(cosine).tan(), step.norm(dim=0))


def test_the_tangent_gradient_is_the_derivative_along_a_step():
    points = unit(12)
    weights = torch.randn(1, 4, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def values(step):
        return (weights[0].T * moved_on_sphere(points, step)).sum()

    (expected,) = torch.autograd.grad(
        values(zero := torch.zeros(3, 12, dtype=torch.float64, requires_grad=True)), zero
    )
    # what pulls along the point itself is taken out by the normalisation
    radial = (weights[0].T * points).sum(1, keepdim=True) * points
    mirror = mirror_of(points).T
    found = tangent_of(weights - radial.T, mirror, 2 / mirror.square().sum(0))[0]
    torch.testing.assert_close(found, expected)
