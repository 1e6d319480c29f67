"""The bundled model, and small networks."""

import pytest
import torch

from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.network import TinyUNet
from geo4d.models.tiny.pipeline import (
    TinyPipelineConfig,
    TinyPredictor,
)


@pytest.fixture(scope="module")
def predictor() -> TinyPredictor:
    torch.manual_seed(0)
    model = TinyModel(smallest_preset())
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.codec.disparity_basis.normal_(0, 0.1)
    model.codec.point_basis.normal_(0, 0.1)
    model.codec.latent_mean[model.config.channels("rays")] = torch.tensor([0.0, 0, 1, 0, 0, 0])
    return TinyPredictor(model, "0" * 64, TinyPipelineConfig(num_pixels=64 * 96))


@pytest.fixture
def net() -> TinyUNet:
    torch.manual_seed(0)
    net = TinyUNet(smallest_preset()).eval()
    for parameter in net.parameters():  # away from the start at zero, so that every path carries signal
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return net
