"""Maps and paths that metrics are tried on."""

import torch


def maps(seed=0, frames=3):
    g = torch.Generator().manual_seed(seed)
    reference = torch.rand(frames, 6, 8, generator=g) * 5 + 1
    predicted = reference * (1 + 0.3 * torch.randn(frames, 6, 8, generator=g)).clamp(min=0.1)
    return predicted, reference, torch.rand(frames, 6, 8, generator=g) > 0.3


def intrinsics(fx, fy, cx, cy):
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
