"""DINOv2 vision transformer, with the parameter names of the published checkpoints.

Legend of shape letters: B pictures, h w patches, D width, L tokens.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.models.layers import LayerNorm, attention

PATCH = 14
TRAINED_PATCHES = 37


class Attention(nn.Module):
    """Self-attention among all tokens of a picture."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Tokens after the attention, without a skip."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return self.proj(attention(query, key, value))


class FeedForward(nn.Module):
    """Two layers with four times the width between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Every token by itself, without a skip."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Channels times their factors."""
        return x * self.gamma


class Block(nn.Module):
    """One layer of the DINOv2 backbone."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = LayerNorm(width, eps=1e-6)
        self.mlp = FeedForward(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Attention and feed-forward, each scaled and beside a skip."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Tokens of 14 x 14 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """One token for each patch; sides must be multiples of ``PATCH``."""
        return self.proj(image)


class DinoV2(nn.Module):
    """The transformer up to its final norm.

    ``mask_token`` belongs to the published file; inference never uses it.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_PATCHES**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = LayerNorm(width, eps=1e-6)

    def position(self, height: int, width: int) -> Float[Tensor, "1 L D"]:
        """Position embedding for a grid of patches, float32.

        The published resize passes a scale factor of (patches + 0.1) / 37 instead of the size, which shifts the samples
        slightly; the weights were trained with it.
        """
        position = self.pos_embed.float()
        if (height, width) == (TRAINED_PATCHES, TRAINED_PATCHES):
            return position
        grid = position[:, 1:].unflatten(1, (TRAINED_PATCHES, TRAINED_PATCHES)).movedim(-1, 1)
        factors = ((height + 0.1) / TRAINED_PATCHES, (width + 0.1) / TRAINED_PATCHES)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=False)
        return torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(
        self, image: Float[Tensor, "B 3 H W"], num_layers: int
    ) -> list[tuple[Float[Tensor, "B D h w"], Float[Tensor, "B D"]]]:
        """Normed patch features and class token after each of the last ``num_layers`` blocks.

        Args:
            image: normalised; sides are multiples of 14.
        """
        return self.at_layers(image, range(len(self.blocks) - num_layers, len(self.blocks)))

    def at_layers(
        self, image: Float[Tensor, "B 3 H W"], layers: Iterable[int]
    ) -> list[tuple[Float[Tensor, "B D h w"], Float[Tensor, "B D"]]]:
        """Normed patch features and class token after some blocks, numbered from 0.

        Args:
            image: normalised; sides are multiples of 14.
        """
        dtype = self.patch_embed.proj.weight.dtype
        patches = self.patch_embed(image.to(dtype))
        height, width = patches.shape[-2:]
        wanted = set(layers)
        cls = self.cls_token.to(dtype).expand(len(image), -1, -1)
        x = torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.position(height, width).to(dtype)
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in wanted:
                kept.append(self.norm(x))
        return [(t[:, 1:].transpose(1, 2).unflatten(2, (height, width)), t[:, 0]) for t in kept]
