import torch

from geo4d.geometry.neighbours import ENOUGH, RADII, mean_around


def test_means_are_those_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    values, weight = torch.rand((9, 14), generator=generator), torch.rand((9, 14), generator=generator) ** 8
    mean, known = mean_around(values, weight)
    for row in range(9):
        for column in range(14):
            for radius in RADII:
                box = (
                    slice(max(0, row - radius), row + radius + 1),
                    slice(max(0, column - radius), column + radius + 1),
                )
                mass = weight[box].sum()
                if mass >= ENOUGH:
                    break
            assert bool(known[row, column]) == bool(mass >= ENOUGH)
            if mass >= ENOUGH:
                expected = (weight[box] * values[box]).sum() / mass
                torch.testing.assert_close(mean[row, column], expected)
    assert int(known.sum()) > 0


def test_every_map_of_a_batch_is_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    values, weight = (
        torch.rand((2, 3, 12, 7), generator=generator),
        torch.rand((2, 3, 12, 7), generator=generator),
    )
    mean, known = mean_around(values, weight)
    alone, known_alone = mean_around(values[1, 2], weight[1, 2])
    torch.testing.assert_close(mean[1, 2], alone)
    assert torch.equal(known[1, 2], known_alone)


def test_without_enough_weight_anywhere_nothing_is_known() -> None:
    mean, known = mean_around(torch.ones(5, 5), torch.full((5, 5), 0.1))
    assert not known.any()
    assert not mean.any()
