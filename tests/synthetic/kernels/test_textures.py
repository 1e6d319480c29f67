import numpy as np
import pytest

from geo4d.synthetic.kernels.textures import neighbours, texel, texel_color

OFFSETS = np.array([0, 256 * 256, 256 * 256 + 128 * 128])


@pytest.fixture(scope="module")
def bank() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (2, 256 * 256 + 128 * 128 + 64 * 64, 4), np.uint8)


def plain(bank: np.ndarray, texture: int, u: float, v: float, level: int) -> np.ndarray:
    """Bilinear between the four texels around the point, wrapping at the borders."""
    size = 256 >> level
    image = bank[texture, OFFSETS[level] : OFFSETS[level] + size * size].reshape(size, size, 4) / 255
    x, y = (u % 1) * size - 0.5, (v % 1) * size - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - x0, y - y0
    rows, columns = [y0 % size, (y0 + 1) % size], [x0 % size, (x0 + 1) % size]
    near = image[np.ix_(rows, columns)]
    return np.einsum("i,j,ijc->c", [1 - fy, fy], [1 - fx, fx], near)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(
    ("u", "v"), [(0.3, 0.7), (0.0, 0.0), (0.9999, 0.0001), (-3.2, 17.9), (1.5 / 256, 0.5 / 256)]
)
def test_colours_lie_between_their_neighbours(bank, level, u, v) -> None:
    expected = plain(bank, 1, u, v, level)
    np.testing.assert_allclose(texel_color(bank, OFFSETS, 1, u, v, level), expected[:3], atol=1e-9)
    for channel in range(4):
        assert texel(bank, OFFSETS, 1, u, v, level, channel) == pytest.approx(expected[channel], abs=1e-9)


def test_a_texture_repeats_without_a_seam(bank) -> None:
    for u, v in ((0.25, 0.5), (0.999, 0.001)):
        np.testing.assert_allclose(
            texel_color(bank, OFFSETS, 0, u, v, 0), texel_color(bank, OFFSETS, 0, u + 3, v - 2, 0), atol=1e-9
        )
    before, after = (
        texel_color(bank, OFFSETS, 0, 1 - 1e-9, 0.5, 0),
        texel_color(bank, OFFSETS, 0, 1e-9, 0.5, 0),
    )
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_the_middle_of_a_texel_is_that_texel(bank) -> None:
    base, size, x0, x1, y0, y1, fx, fy = neighbours(OFFSETS, 10.5 / 128, 20.5 / 128, 1)
    assert (base, size, x0, x1, y0, y1) == (OFFSETS[1], 128, 10, 11, 20, 21)
    assert (fx, fy) == pytest.approx((0, 0))
