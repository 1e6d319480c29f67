import numpy as np
import pytest

from geo4d.synthetic.kernels.develop import develop_frame

LINEAR = np.linspace(0, 1, 256)


def develop(color: np.ndarray, block: int = 1, *, factor=1.0, gains=(1, 1, 1), contrast=1.0, pivot=0.5, saturation=1.0,
            curve=LINEAR, noise=0.0, seed=0) -> np.ndarray:  # fmt: skip
    rgb = np.zeros((color.shape[0] // block, color.shape[1] // block, 3), np.uint8)
    develop_frame(
        np.ascontiguousarray(color, np.float64), float(factor), block, np.array(gains, float), float(contrast),
        float(pivot), float(saturation), curve, float(noise), seed, rgb,
    )  # fmt: skip
    return rgb


def test_light_becomes_rounded_bytes() -> None:
    color = np.random.default_rng(0).random((4, 6, 3))
    np.testing.assert_array_equal(develop(color), np.floor(color * 255 + 0.5))
    assert develop(np.array([[[-1.0, 2.0, 0.5]]])).tolist() == [[[0, 255, 128]]]


def test_pixels_are_means_of_blocks() -> None:
    color = np.random.default_rng(0).random((4, 6, 3))
    mean = color.reshape(2, 2, 3, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(develop(color, 2), np.floor(mean * 255 + 0.5))


def test_exposure_and_white_balance_come_before_the_curve() -> None:
    color = np.full((1, 1, 3), 0.25)
    found = develop(color, factor=2.0, gains=(1.0, 0.5, 4.0), curve=np.sqrt(LINEAR))[0, 0] / 255
    np.testing.assert_allclose(found, np.sqrt([0.5, 0.25, 1.0]), atol=0.004)


def test_saturation_and_contrast() -> None:
    color = np.array([[[0.2, 0.4, 0.6]]])
    assert len(set(develop(color, saturation=0.0)[0, 0].tolist())) == 1
    np.testing.assert_allclose(develop(color, saturation=0.5)[0, 0] / 255, [0.3, 0.4, 0.5], atol=0.003)
    np.testing.assert_allclose(
        develop(color, contrast=0.5, pivot=0.4)[0, 0] / 255, [0.3, 0.4, 0.5], atol=0.003
    )


def test_noise_has_its_deviation_and_belongs_to_its_seed() -> None:
    color = np.full((120, 160, 3), 0.5)
    first, again, other = (develop(color, noise=0.02, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    values = first / 255 - 0.5
    assert values.std() == pytest.approx(0.02, rel=0.05)
    assert abs(values.mean()) < 1e-3
    assert (
        abs(np.corrcoef(values[..., 0].ravel(), values[..., 1].ravel())[0, 1]) < 0.05
    )  # channels are independent
