"""Blocks of the UNet of the DynamiCrafter lineage: embeddings, residual blocks, transformers over space and time.

Shapes: B windows, T frames, N = B T, C channels, H W latent pixels, L context tokens.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.models.layers import GroupNorm, LayerNorm, attention

FEED_FORWARD_ROWS = 8192
"""Tokens that pass a feed-forward part together when no gradient is needed."""


def sinusoidal_embedding(position: Float[Tensor, " n"], dim: int) -> Float[Tensor, "n dim"]:
    """Cosines, then sines, of position * 10000^(-k / half), k = 0 .. half - 1."""
    half = dim // 2
    frequency = torch.exp(
        -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=position.device) / half
    )
    angle = position[:, None].float() * frequency
    embedding = torch.cat([angle.cos(), angle.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


def _joint(x_NCHW: Tensor, num_frames: int) -> Tensor:
    """All frames of a window as one picture of T rows: [B, C, T, H W]."""
    n, c, h, w = x_NCHW.shape
    rows = x_NCHW.permute(0, 2, 3, 1).reshape(n // num_frames, num_frames, h * w, c)
    return rows.permute(0, 3, 1, 2)


def _frames(x_BCTP: Tensor, height: int, width: int) -> Tensor:
    """Inverse of :func:`_joint`."""
    b, c, t, _ = x_BCTP.shape
    return x_BCTP.permute(0, 2, 3, 1).reshape(b * t, height, width, c).permute(0, 3, 1, 2)


class EmbeddingMLP(nn.Module):
    """Sinusoidal embedding of a number, then Linear-SiLU-Linear."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.proj_in = nn.Linear(dim, out_dim)
        self.proj_out = nn.Linear(out_dim, out_dim)

    def forward(self, number: Float[Tensor, " n"]) -> Float[Tensor, "n out"]:
        """Embedding of a timestep or a frame rate."""
        embedding = sinusoidal_embedding(number, self.dim).to(self.proj_in.weight.dtype)
        return self.proj_out(F.silu(self.proj_in(embedding)))


class TemporalConv(nn.Module):
    """Four convolutions over time with one identity skip around all of them; norms run over all frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(GroupNorm(32, channels, eps=1e-5) for _ in range(4))
        # A (3, 1, 1) kernel over [T, H, W] is a (3, 1) kernel over [T, H W], which runs on the faster 2-D
        # path.
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, (3, 1), padding=(1, 0)) for _ in range(4))

    def forward(self, x: Float[Tensor, "N C H W"], num_frames: int) -> Float[Tensor, "N C H W"]:
        """Four convolutions over time beside a skip; N is windows x ``num_frames``."""
        joint = hidden = _joint(x, num_frames)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            hidden = conv(F.silu(norm(hidden), inplace=True))
        return _frames(joint + hidden, x.shape[2], x.shape[3])


class ResidualBlock(nn.Module):
    """Two convolutions with the timestep added in between, then the temporal convolutions."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.norm_in = GroupNorm(32, in_channels, eps=1e-5)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, out_channels)
        self.norm_out = GroupNorm(32, out_channels, eps=1e-5)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.temporal = TemporalConv(out_channels)

    def forward(
        self, x: Float[Tensor, "N C H W"], embedding: Float[Tensor, "N D"], num_frames: int
    ) -> Float[Tensor, "N C2 H W"]:
        """Two convolutions over space with the embedding added between them, then those over time."""
        hidden = self.conv_in(F.silu(self.norm_in(x), inplace=True))
        hidden = hidden + self.embedding(F.silu(embedding))[:, :, None, None]
        hidden = self.conv_out(F.silu(self.norm_out(hidden), inplace=True))
        return self.temporal(self.skip(x) + hidden, num_frames)


class FeedForward(nn.Module):
    """Gated feed-forward: value * GELU(gate)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, 8 * dim)
        self.proj_out = nn.Linear(4 * dim, dim)

    def forward(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """The gated layer on every token; without gradients in blocks of ``FEED_FORWARD_ROWS`` tokens."""
        rows = x.flatten(0, -2)
        if torch.is_grad_enabled() or len(rows) <= FEED_FORWARD_ROWS:
            return self._rows(x)
        # What lies between the projections is eight times wider than x; in blocks it is never all there.
        return torch.cat([self._rows(block) for block in rows.split(FEED_FORWARD_ROWS)]).reshape(x.shape)

    def _rows(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        value, gate = self.proj_in(x).chunk(2, dim=-1)
        return self.proj_out(value * F.gelu(gate))


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases on the projections in."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [*b, heads, d]."""
        q, k, v = (p(x).unflatten(-1, (self.num_heads, -1)) for p in (self.to_q, self.to_k, self.to_v))
        return q, k, v

    def forward(self, x: Float[Tensor, "N P D"]) -> Float[Tensor, "N P D"]:
        """Attention among the P pixels of each frame."""
        return self.to_out(attention(*self.heads(x)))


class TemporalSelfAttention(SelfAttention):
    """Self-attention of every pixel over its frames."""

    def forward(self, x: Float[Tensor, "B T P D"]) -> Float[Tensor, "B T P D"]:
        """Attention among the T frames at each pixel."""
        b, t, p, d = x.shape
        q, k, v = (y.permute(0, 2, 1, 3, 4).reshape(b * p, t, self.num_heads, -1) for y in self.heads(x))
        out = attention(q, k, v).reshape(b, p, t, d).transpose(1, 2)
        return self.to_out(out)


class CrossAttention(nn.Module):
    """Attention to text tokens plus attention to image tokens, with one query and two softmaxes."""

    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.text_to_k = nn.Linear(context_dim, dim, bias=False)
        self.text_to_v = nn.Linear(context_dim, dim, bias=False)
        self.image_to_k = nn.Linear(context_dim, dim, bias=False)
        self.image_to_v = nn.Linear(context_dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def project(
        self, context: Float[Tensor, "B L D"], text_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Text keys and values, image keys and values, [B, tokens, heads, d]."""
        text, image = context[:, :text_tokens], context[:, text_tokens:]
        pairs = (
            (self.text_to_k, text),
            (self.text_to_v, text),
            (self.image_to_k, image),
            (self.image_to_v, image),
        )
        a, b, c, d = (p(tokens).unflatten(-1, (self.num_heads, -1)) for p, tokens in pairs)
        return a, b, c, d

    def forward(
        self,
        x: Float[Tensor, "N P D"],
        keys: tuple[Tensor, Tensor, Tensor, Tensor],
        num_frames: int,
        per_frame: bool,
    ) -> Float[Tensor, "N P D"]:
        """Pixels look at text and picture tokens.

        Args:
            keys: keys and values of the text, then of the picture.
            per_frame: the picture tokens are those of each frame rather than of the window.
        """
        n, p, _ = x.shape
        batch = n // num_frames
        query = self.to_q(x).unflatten(-1, (self.num_heads, -1))
        # Frames share the text, so all pixels of a window are queries to one set of keys.
        joint = query.reshape(batch, num_frames * p, self.num_heads, -1)
        text_k, text_v, image_k, image_v = (y.expand(batch, -1, -1, -1) for y in keys)
        out = attention(joint, text_k, text_v).reshape(n, p, -1)
        if per_frame:
            image_k, image_v = (y.unflatten(1, (num_frames, -1)).flatten(0, 1) for y in (image_k, image_v))
            out = out + attention(query, image_k, image_v)
        else:
            out = out + attention(joint, image_k, image_v).reshape(n, p, -1)
        return self.to_out(out)


class SpatialBlock(nn.Module):
    """Self-attention over the pixels of a frame, cross-attention to the context, feed-forward."""

    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm_self = LayerNorm(dim)
        self.self_attention = SelfAttention(dim, num_heads)
        self.norm_cross = LayerNorm(dim)
        self.cross_attention = CrossAttention(dim, context_dim, num_heads)
        self.norm_feed = LayerNorm(dim)
        self.feed = FeedForward(dim)

    def forward(
        self,
        x: Float[Tensor, "N P D"],
        keys: tuple[Tensor, Tensor, Tensor, Tensor],
        num_frames: int,
        per_frame: bool,
    ) -> Float[Tensor, "N P D"]:
        """Self-attention, cross-attention, feed-forward, each beside a skip; arguments as in ``CrossAttention``."""
        x = x + self.self_attention(self.norm_self(x))
        x = x + self.cross_attention(self.norm_cross(x), keys, num_frames, per_frame)
        return x + self.feed(self.norm_feed(x))


class SpatialTransformer(nn.Module):
    """Transformer over the pixels of each frame."""

    def __init__(self, channels: int, head_channels: int, depth: int, context_dim: int) -> None:
        super().__init__()
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        heads = channels // head_channels
        self.blocks = nn.ModuleList(SpatialBlock(channels, context_dim, heads) for _ in range(depth))
        self.proj_out = nn.Linear(channels, channels)

    def forward(
        self, x: Float[Tensor, "N C H W"], keys: list[tuple[Tensor, ...]], num_frames: int, per_frame: bool
    ) -> Float[Tensor, "N C H W"]:
        """All blocks on the pixels of each frame, beside a skip.

        Args:
            keys: for each block what its cross-attention looks at.
        """
        n, c, h, w = x.shape
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c))
        for block, block_keys in zip(self.blocks, keys, strict=True):
            tokens = block(tokens, block_keys, num_frames, per_frame)
        return x + self.proj_out(tokens).reshape(n, h, w, c).permute(0, 3, 1, 2)


class TemporalBlock(nn.Module):
    """Two self-attentions over the frames of a pixel, feed-forward."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm_first = LayerNorm(dim)
        self.first_attention = TemporalSelfAttention(dim, num_heads)
        self.norm_second = LayerNorm(dim)
        self.second_attention = TemporalSelfAttention(dim, num_heads)
        self.norm_feed = LayerNorm(dim)
        self.feed = FeedForward(dim)

    def forward(self, x: Float[Tensor, "B T P D"]) -> Float[Tensor, "B T P D"]:
        """Attention over time twice, then feed-forward, each beside a skip."""
        x = x + self.first_attention(self.norm_first(x))
        x = x + self.second_attention(self.norm_second(x))
        return x + self.feed(self.norm_feed(x))


class TemporalTransformer(nn.Module):
    """Transformer over time; the norm in front runs over all frames of a window."""

    def __init__(self, channels: int, head_channels: int, num_heads: int, depth: int) -> None:
        super().__init__()
        inner = head_channels * num_heads
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.blocks = nn.ModuleList(TemporalBlock(inner, num_heads) for _ in range(depth))
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x: Float[Tensor, "N C H W"], num_frames: int) -> Float[Tensor, "N C H W"]:
        """All blocks on the frames at each pixel, beside a skip."""
        tokens = self.proj_in(self.norm(_joint(x, num_frames)).permute(0, 2, 3, 1))
        for block in self.blocks:
            tokens = block(tokens)
        return x + _frames(self.proj_out(tokens).permute(0, 3, 1, 2), x.shape[2], x.shape[3])


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H2 W2"]:
        """Twice the height and width."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
