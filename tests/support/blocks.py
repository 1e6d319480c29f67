"""What several tests share."""

import torch

from geo4d.models.geometrycrafter.config import PointMapVAEConfig
from geo4d.models.geometrycrafter.vae import PointMapDecoder


def tiny_decoder() -> PointMapDecoder:
    torch.manual_seed(0)
    config = PointMapVAEConfig(dec_block_out_channels=(64, 64), dec_layers_per_block=2)
    return PointMapDecoder(config).requires_grad_(False)
