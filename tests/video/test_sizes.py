import numpy as np
import pytest

from geo4d.video.sizes import fit_size, resized


@pytest.mark.parametrize(
    ("size", "most", "fitted"),
    [
        ((1080, 1920), 640, (360, 640)),
        ((1920, 1080), 640, (640, 360)),
        ((1080, 1920), 1920, (1080, 1920)),
        ((480, 640), 1000, (480, 640)),  # never enlarged
        ((480, 640), None, (480, 640)),
        ((3, 4000), 400, (1, 400)),  # never thinner than a pixel
    ],
)
def test_the_longest_side_is_what_was_asked_for(size, most, fitted) -> None:
    assert fit_size(size, most) == fitted


def test_shrinking_averages_whole_blocks() -> None:
    rng = np.random.default_rng(0)
    frame = rng.random((12, 18, 3), np.float32)
    wanted = frame.reshape(4, 3, 9, 2, 3).mean((1, 3))
    np.testing.assert_allclose(resized(frame, (4, 9)), wanted, atol=1e-6)


def test_growing_keeps_the_places_of_an_image_that_spans_its_edges() -> None:
    def ramp(height: int, width: int) -> np.ndarray:
        """Colour that is a place, (column, row) as shares, at pixel centres +0.5."""
        x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        return np.stack([x, y], -1).astype(np.float32)

    large = resized(ramp(6, 8), (18, 32))
    inside = (slice(3, -3), slice(4, -4))  # beyond the outermost centres nothing is known
    np.testing.assert_allclose(large[inside], ramp(18, 32)[inside], atol=1e-6)


def test_the_same_size_is_the_same_frame() -> None:
    frame = np.zeros((4, 6, 3), np.uint8)
    assert resized(frame, (4, 6)) is frame
