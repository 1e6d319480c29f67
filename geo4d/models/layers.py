"""Blocks that more than one network uses unchanged.

Norms keep float32 parameters and statistics whatever the type of the activations; :func:`hold_weights` casts
the rest.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group normalisation in float32; the result has the type of the input."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dtype == torch.float32 or input.device.type == "cpu":
            # The CPU kernel takes half-precision input with float32 parameters and sums in float32.
            return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return super().forward(input.float()).to(input.dtype)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32; the result has the type of the input."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dtype == torch.float32 or input.device.type == "cpu":
            return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
        return super().forward(input.float()).to(input.dtype)


def attention(
    query: Float[Tensor, "B L heads d"],
    key: Float[Tensor, "B S heads d"],
    value: Float[Tensor, "B S heads d"],
    *,
    causal: bool = False,
) -> Float[Tensor, "B L inner"]:
    """Softmax attention with scale d^-1/2 by torch's fused kernel; heads come back side by side."""
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=causal
    )
    return out.transpose(1, 2).flatten(2)


def hold_weights(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast the parameters of linear and convolution layers in place; norms and embeddings stay as they
    are.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            child.to(dtype)
    return module


def use_channels_last(module: nn.Module) -> nn.Module:
    """Lay out the kernels of 2-D convolutions with channels innermost, in place. Values do not change."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            child.to(memory_format=torch.channels_last)
    return module


def meta_module(make: type[nn.Module], *arguments: object) -> nn.Module:
    """A module without storage, for reading names and shapes or for loading with ``assign=True``."""
    with torch.device("meta"):
        return make(*arguments)
