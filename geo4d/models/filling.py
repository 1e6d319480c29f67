"""Published tensors into a network whose names are the published ones, with every key accounted for."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from geo4d.errors import CheckpointError
from geo4d.models.store.looks import describe_keys

_Network = TypeVar("_Network", bound=nn.Module)


def key_problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], most: int = 4) -> str:
    """What is missing, unknown or of another shape, in words; empty when all keys fit."""
    groups = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "of another shape": sorted(
            f"{key} {tuple(found[key].shape)} for {tuple(expected[key].shape)}"
            for key in expected.keys() & found.keys()
            if expected[key].shape != found[key].shape
        ),
    }
    return "; ".join(
        f"{len(keys)} {what}: {', '.join(keys[:most])}{', ...' if len(keys) > most else ''}"
        for what, keys in groups.items()
        if keys
    )


def fill_network(network: _Network, tensors: Mapping[str, Tensor], dtype: torch.dtype, what: str) -> _Network:
    """Put tensors into a network that was made on the meta device, in place; no weight is held twice.

    Args:
        tensors: by the network's own names; floating ones are cast to ``dtype``.
        what: the network in words, for messages.
    Raises:
        CheckpointError: a key is missing, unknown or of another shape.
    """
    problems = key_problems(network.state_dict(), tensors)
    if problems:
        raise CheckpointError(f"{what} does not fit: {problems} (it looks like {describe_keys(tensors)})")
    cast = {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}
    network.load_state_dict(cast, assign=True)
    for name, buffer in list(network.named_buffers()):
        # A constant that checkpoints do not store.
        if buffer.is_meta and name.rpartition(".")[2] == "position_ids":
            owner = network.get_submodule(name.rpartition(".")[0])
            owner.register_buffer("position_ids", torch.arange(buffer.shape[-1])[None], persistent=False)
    tensors_left = [*network.named_parameters(), *network.named_buffers()]
    left = [name for name, tensor in tensors_left if tensor.is_meta]
    if left:
        raise CheckpointError(f"{what} does not fit: no values for {', '.join(left)}")
    network.eval()
    network.requires_grad_(False)
    return network
