"""What the numbers of each family mean, by networks whose answer is known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geo4d.models.huggingface.network import HubNetwork
from geo4d.models.huggingface.preprocessing import Preprocessing

SIZE = (40, 60)


class Answering(nn.Module):
    """Gives one map for every picture."""

    def __init__(self, answer, fov=None):
        super().__init__()
        self.unused, self.answer, self.fov = nn.Linear(1, 1), answer, fov

    def forward(self, pixel_values):
        count = len(pixel_values)
        fov = None if self.fov is None else torch.full((count,), self.fov)
        return SimpleNamespace(predicted_depth=self.answer.expand(count, -1, -1), field_of_view=fov)


def ask(answer, meaning, fov=None):
    made = HubNetwork(Answering(answer, fov), Preprocessing("dpt", (32, 48)), meaning)
    return made, made(torch.rand(2, *SIZE, 3))


def test_relative_disparity_grows_towards_the_camera_and_ends_in_the_sky():
    answer = torch.linspace(0, 10, 32)[:, None].expand(32, 48)  # near at the bottom
    made, found = ask(answer, "relative disparity")
    assert made.scale_kind == "affine"
    assert found.disparity.shape == (2, *SIZE)
    assert (found.disparity[0, 1:] >= found.disparity[0, :-1]).all()
    assert found.sky[:, 0].all()
    assert not found.sky[:, 2:].any()
    assert found.intrinsics is None


def test_metric_depth_becomes_disparity():
    made, found = ask(torch.full((32, 48), 4.0), "metric depth")
    assert made.scale_kind == "metric"
    torch.testing.assert_close(found.disparity, torch.full((2, *SIZE), 0.25))
    assert found.sky is None


def test_zero_depth_stays_finite():
    _, found = ask(torch.zeros(32, 48), "metric depth")
    assert torch.isfinite(found.disparity).all()


@pytest.mark.parametrize("fov_deg", [40.0, 90.0])
def test_inverse_depth_takes_its_metres_from_the_field_of_view(fov_deg):
    """Depth Pro: depth = focal / width / value, with the focal length of the picture, by hand."""
    made, found = ask(torch.full((32, 48), 0.2), "focal-free inverse depth", fov_deg)
    focal = SIZE[1] / 2 / math.tan(math.radians(fov_deg) / 2)
    torch.testing.assert_close(1 / found.disparity, torch.full((2, *SIZE), focal / SIZE[1] / 0.2))
    torch.testing.assert_close(found.intrinsics[:, 0, 0], torch.full((2,), focal))
    torch.testing.assert_close(found.intrinsics[:, 0, 2], torch.full((2,), SIZE[1] / 2))
    assert made.scale_kind == "metric"
    # transformers: depth * width / focal, then one over it.
    theirs = 1 / torch.clamp(torch.full(SIZE, 0.2) * SIZE[1] / focal, min=1e-4, max=1e4)
    torch.testing.assert_close(1 / found.disparity[0], theirs)


def test_maps_agree_with_the_processor_of_dpt():
    pytest.importorskip("transformers")
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    row, column = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 2, 48), indexing="ij")
    answer = 2 + row.sin() + column.cos()
    _, found = ask(answer, "relative disparity")
    outputs = SimpleNamespace(predicted_depth=answer[None])
    (theirs,) = DPTImageProcessorPil().post_process_depth_estimation(outputs, target_sizes=[SIZE])
    assert (found.disparity[0] - theirs["predicted_depth"]).abs()[2:-2, 2:-2].max() < 0.01
