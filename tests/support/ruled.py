"""Networks whose weights follow from the names of their tensors, as when the authors' outputs were recorded."""

from typing import TypeVar

import torch
from torch import nn

from benchmarks.parity import rule_tensor

_Network = TypeVar("_Network", bound=nn.Module)


def fill_ruled(network: _Network) -> _Network:
    """Give every floating tensor the made-up weight of its key; picture constants stay."""
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point() and key.rpartition(".")[2] not in ("image_mean", "image_std"):
                tensor.copy_(torch.from_numpy(rule_tensor(key, tuple(tensor.shape))))
    return network.eval().requires_grad_(False)
