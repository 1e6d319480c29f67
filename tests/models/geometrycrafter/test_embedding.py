import pytest
import torch

from geo4d.models.geometrycrafter.embedding import embed_frames, gaussian_kernel, resize_for_clip


@torch.no_grad()
def test_recorded_resize_and_embedding(golden, golden_folder, small):
    data = golden("clip")
    assert (resize_for_clip(data["video"])[..., ::8, ::8] - data["resized_every_8th"]).abs().max() < 1e-5
    embedding = embed_frames(data["video"], small.make_image_encoder(golden_folder))
    assert (embedding - data["embedding"]).abs().max() < 1e-5


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.7, 8.0])
def test_kernel_is_odd_symmetric_and_normalised(factor):
    kernel = gaussian_kernel(factor)
    assert len(kernel) % 2 == 1
    torch.testing.assert_close(kernel, kernel.flip(0))
    assert kernel.sum() == pytest.approx(1)


def test_corners_stay_in_place_when_growing():
    image = torch.rand(1, 3, 10, 12)
    resized = resize_for_clip(image, (30, 40))
    for row in (0, -1):
        for column in (0, -1):
            torch.testing.assert_close(resized[..., row, column], image[..., row, column])


def test_too_small_a_picture_is_refused():
    with pytest.raises(ValueError, match="pixels along each side"):
        resize_for_clip(torch.zeros(1, 3, 1, 1))
