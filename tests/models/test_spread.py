import torch

from geo4d.models import spread


def test_an_edge_of_the_picture_holds_a_correction_back() -> None:
    """Only the left half has evidence, and is wrong; the right half follows less where the picture has an edge."""
    values, weight = torch.ones(1, 2, 24, 32), torch.zeros(1, 2, 24, 32)
    weight[..., :12] = 1.0
    plain = torch.zeros(1, 2, 3, 24, 32)
    split = plain.clone()
    split[..., 12:] = 0.8
    free, held = (spread.spread_field(values, weight, colour)[0, 0, 12] for colour in (plain, split))
    assert free[11] > 0.9
    assert held[11] > 0.9
    assert free[13] > 0.3
    assert held[13] < 0.85 * free[13]


def test_the_field_is_the_minimiser() -> None:
    """Against a dense solve of the same normal equations."""
    generator = torch.Generator().manual_seed(2)
    values, weight = torch.randn(1, 3, 4, 5, generator=generator), torch.rand(1, 3, 4, 5, generator=generator)
    weight = torch.where(weight < 0.5, 0.0, weight)
    colour = torch.rand(1, 3, 3, 4, 5, generator=generator) * 0.2
    count = 3 * 4 * 5
    number = torch.arange(count).reshape(3, 4, 5)
    pixels = colour[0].movedim(1, -1).reshape(count, 3)
    matrix = torch.diag(weight.flatten() + spread.SMOOTHNESS / spread.REACH**2).double()
    pairs = [
        (number[1:], number[:-1], spread.STEADINESS),
        (number[:, 1:], number[:, :-1], spread.SMOOTHNESS),
        (number[..., 1:], number[..., :-1], spread.SMOOTHNESS),
    ]
    for first, second, strength in pairs:
        for i, j in zip(first.flatten().tolist(), second.flatten().tolist(), strict=True):
            likeness = torch.exp(-0.5 * (pixels[i] - pixels[j]).square().mean() / spread.EDGE**2)
            a = strength * (spread.LEAST_LINK + (1 - spread.LEAST_LINK) * float(likeness))
            matrix[i, i] += a
            matrix[j, j] += a
            matrix[i, j] -= a
            matrix[j, i] -= a
    exact = torch.linalg.solve(matrix, (weight * values).flatten().double()).reshape(values.shape)
    torch.testing.assert_close(
        spread.spread_field(values, weight, colour).double(), exact, rtol=1e-4, atol=1e-4
    )
