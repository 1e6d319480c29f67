import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.video.arrays import ArraySource
from geo4d.video.limits import MAX_PIXELS


def test_bytes_are_handed_out_as_they_are() -> None:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    source = ArraySource(frames[:, ::-1])  # a view: rows from the last to the first
    assert (source.num_frames, source.size) == (2, (3, 4))
    assert source.read(1).flags.c_contiguous
    np.testing.assert_array_equal(source.read(1), np.flip(frames[1], 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_every_byte_survives_as_a_share_of_one(dtype: torch.dtype) -> None:
    wanted = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, -1)
    colour = torch.tensor(wanted[None] / 255).to(dtype).requires_grad_()
    np.testing.assert_array_equal(ArraySource(colour).read(0), wanted)


def test_rounding_noise_is_cut_and_other_ranges_are_refused_by_the_frame() -> None:
    frames = np.full((3, 2, 2, 3), 0.5, np.float32)
    frames[0, 0, 0, 0], frames[0, 1, 1, 1] = -0.0005, 1.0005
    frames[1, 0, 0, 0] = 200.0
    frames[2, 1, 0, 2] = np.nan
    source = ArraySource(frames)
    assert source.read(0)[0, 0].tolist() == [0, 128, 128]
    assert source.read(0)[1, 1].tolist() == [128, 255, 128]
    for frame in (1, 2):
        with pytest.raises(InputError, match=rf"frame {frame}: expected float colour in \[0, 1\]"):
            source.read(frame)


@pytest.mark.parametrize("shape", [(4, 6, 3), (2, 3, 4, 6), (0, 4, 6, 3), (2, 0, 6, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected video \[T, H, W, 3\]"):
        ArraySource(np.zeros(shape, np.uint8))


def test_other_types_and_giant_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="int16"):
        ArraySource(np.zeros((1, 2, 2, 3), np.int16))
    side = int(MAX_PIXELS**0.5) + 1
    giant = np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (1, side, side, 3))
    with pytest.raises(InputError, match=f"at most {MAX_PIXELS} pixels"):
        ArraySource(giant)
