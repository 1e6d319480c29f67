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
        """The norm of [N, C, ...] with sums in float32, in the type of the input."""
        if input.device.type != "cpu":
            return super().forward(input.float()).to(input.dtype)
        if input.dtype == torch.float32 and input.ndim == 4 and not input.is_contiguous():
            return self._innermost_channels(input)
        # The CPU kernel takes half-precision input with float32 parameters and sums in float32.
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def _innermost_channels(self, x_NCHW: Tensor) -> Tensor:
        """For channels innermost in memory, where torch's CPU kernel adds up a whole picture in one float32.

        Its relative error there was 3e-6 on 128 channels of 256x512, this one's 4e-8.
        """
        n, c, h, w = x_NCHW.shape
        grouped = x_NCHW.permute(0, 2, 3, 1).reshape(n, h * w, self.num_groups, -1)
        variance, mean = torch.var_mean(grouped, (1, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(variance + self.eps) * self.weight.reshape(self.num_groups, -1)
        shift = self.bias.reshape(self.num_groups, -1) - mean * scale
        return torch.addcmul(shift, grouped, scale).reshape(n, h, w, c).permute(0, 3, 1, 2)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32; the result has the type of the input."""

    def forward(self, input: Tensor) -> Tensor:
        """The norm over the last axes with sums in float32, in the type of the input."""
        if input.device.type == "cpu":
            return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
        return super().forward(input.float()).to(input.dtype)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), in the memory of ``x`` where no gradient is wanted: nobody else may need ``x``.

    Fresh memory costs a CPU up to five times what the function itself does.
    """
    return F.silu(x, inplace=not torch.is_grad_enabled())


MOST_SEQUENCES = 65_535
"""Sequences that an accelerator's fused kernels take in one call: the batch is an axis of their grid."""

LARGEST_TABLE = 2**25
"""Weights of an attention, over all sequences and heads, up to which it is written out in training on a CPU."""


def attention(
    query: Float[Tensor, "B L heads d"],
    key: Float[Tensor, "B S heads d"],
    value: Float[Tensor, "B S heads d"],
    *,
    causal: bool = False,
) -> Float[Tensor, "B L inner"]:
    """Softmax attention with scale d^-1/2 by torch's fused kernel; heads come back side by side.

    In training on a CPU it is written out where its table is small: the gradient of the fused kernel takes longer there
    (``benchmarks/attention_in_training.py``).
    """
    if query.device.type != "cpu" and len(query) > MOST_SEQUENCES:
        parts = zip(*(tensor.split(MOST_SEQUENCES) for tensor in (query, key, value)), strict=True)
        return torch.cat([attention(*part, causal=causal) for part in parts])
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    table = query.shape[:-1].numel() * key.shape[-2]
    if query.device.type == "cpu" and torch.is_grad_enabled() and not causal and table <= LARGEST_TABLE:
        weight = ((query * query.shape[-1] ** -0.5) @ key.mT).softmax(-1)
        out = weight.to(value.dtype) @ value
    else:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def as_layout_of(kernel: Tensor, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """``x`` in the type and memory layout of a convolution kernel, so that the layers behind follow."""
    innermost = kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    layout = torch.channels_last if innermost else torch.contiguous_format
    return x.to(kernel.dtype).contiguous(memory_format=layout)


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
            child.weight.data = child.weight.data.contiguous(memory_format=torch.channels_last)
    return module


class TimeConv(nn.Conv3d):
    """A convolution over time alone, kernel (k, 1, 1), computed as one over a picture of T x (H W): the same numbers.

    On a CPU the kernels over three axes are slow in 16-bit types, and their bfloat16 gradient for clips of two frames
    writes outside its memory, which ends the process (torch 2.13, oneDNN).
    """

    def forward(self, input: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B c T H W"]:
        """As ``nn.Conv3d`` does."""
        flat = F.conv2d(input.flatten(3), self.weight[..., 0], self.bias, padding=(int(self.padding[0]), 0))
        return flat.unflatten(3, input.shape[3:])


def set_norm_groups(module: nn.Module, num_groups: int) -> nn.Module:
    """Give every group norm this number of groups, in place; parameters stay.

    The published networks have 32 groups, of 4 channels or more. In a network 32 channels wide those would be single
    channels, and a norm of single channels takes away what a map is as a whole: how near, how large.

    Raises:
        ValueError: a norm's channels are not a multiple of it.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.GroupNorm):
            if num_groups < 1 or child.num_channels % num_groups:
                raise ValueError(
                    f"expected a number of groups that divides {child.num_channels} channels ({name}), got {num_groups}"
                )
            child.num_groups = num_groups
    return module


def flatten_time_convs(module: nn.Module) -> nn.Module:
    """Turn every plain convolution over time alone into a ``TimeConv``, in place; parameters and names stay."""
    for child in module.modules():
        if type(child) is nn.Conv3d and _is_over_time_alone(child):
            child.__class__ = TimeConv
    return module


def _is_over_time_alone(conv: nn.Conv3d) -> bool:
    plain = conv.stride == conv.dilation == (1, 1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return plain and conv.kernel_size[1:] == (1, 1) and tuple(conv.padding[1:]) == (0, 0)
