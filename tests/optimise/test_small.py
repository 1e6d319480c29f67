import torch

from geo4d.optimise.small import cholesky_3x3, solve_3x3, sum_outer, whiten


def test_factors_solve_and_whiten():
    g = torch.Generator().manual_seed(0)
    A = torch.randn(50, 3, 5, generator=g, dtype=torch.float64)
    V, right = A @ A.mT, torch.randn(50, 3, generator=g, dtype=torch.float64)
    factor = cholesky_3x3(V.permute(1, 2, 0), 0.0)
    solved = solve_3x3(factor, right.T).T
    torch.testing.assert_close((V @ solved[..., None])[..., 0], right, atol=1e-5, rtol=0)
    white = whiten(A.permute(2, 1, 0), factor).permute(2, 0, 1)  # rows L^-T of A^T are orthonormal
    torch.testing.assert_close(white.mT @ white, torch.eye(3).double().expand(50, 3, 3), atol=1e-5, rtol=0)


def test_damping_raises_the_diagonal_by_its_share():
    A = torch.randn(3, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    V = A @ A.T
    damped = V + 0.5 * torch.diag(V.diagonal())
    solved = solve_3x3(cholesky_3x3(V[..., None], 0.5), torch.ones(3, 1, dtype=torch.float64))
    torch.testing.assert_close(damped @ solved, torch.ones(3, 1, dtype=torch.float64), atol=1e-6, rtol=0)


def test_products_of_columns():
    g = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 4, 7, generator=g), torch.randn(2, 3, 7, generator=g)
    torch.testing.assert_close(sum_outer(a, b), torch.einsum("kio,kjo->ijo", a, b))
