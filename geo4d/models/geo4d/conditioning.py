"""What the UNet is told beside the pictures: text tokens, image tokens, and the query resampler.

For the released network all of it is one constant, computed once when a checkpoint is converted
(``docs/decisions/geo4d-constant-context.md``).

Shapes: B windows, N pictures, T frames, L tokens, D width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from geo4d.models.geo4d.config import CLIPConfig, ResamplerConfig
from geo4d.models.layers import LayerNorm, attention

PROMPT = "Output a video that assigns each 3D location in the world a consistent color."
"""The one prompt of the published scripts."""

_START, _END = 49406, 49407
_PROMPT_TOKENS = [
    17255, 320, 1455, 682, 587, 4659, 2416, 274, 323, 4372, 530, 518, 1002, 320, 16439, 3140, 269,
]  # fmt: skip


def prompt_tokens(prompt: str, context_length: int = 77) -> Int[Tensor, "1 L"]:
    """Token ids of the published prompt or of the empty one (the unconditional branch).

    The tables of the byte-pair encoder are not part of this package: no other prompt has a meaning for this
    network.

    Raises:
        ValueError: another prompt.
    """
    if prompt not in ("", PROMPT):
        raise ValueError(f"expected the published prompt or an empty one, got {prompt!r}")
    words = _PROMPT_TOKENS if prompt else []
    tokens = [_START, *words, _END]
    return torch.tensor([tokens + [0] * (context_length - len(tokens))])


class TowerBlock(nn.Module):
    """Pre-norm transformer block of both CLIP towers."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.norm2 = LayerNorm(dim)
        self.feed_in = nn.Linear(dim, 4 * dim)
        self.feed_out = nn.Linear(4 * dim, dim)

    def forward(self, x: Float[Tensor, "N L D"], *, causal: bool) -> Float[Tensor, "N L D"]:
        """One layer; with ``causal`` a token sees only those before it."""
        qkv = self.to_qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1))
        x = x + self.to_out(attention(*qkv.unbind(2), causal=causal))
        return x + self.feed_out(F.gelu(self.feed_in(self.norm2(x))))


class TextTower(nn.Module):
    """OpenCLIP text tower up to the second-to-last block, then the final norm."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width = config.text_width
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.blocks = nn.ModuleList(
            TowerBlock(width, config.text_heads) for _ in range(config.text_layers - config.text_skip_last)
        )
        self.norm_out = LayerNorm(width)

    def forward(self, token_ids: Int[Tensor, "N L"]) -> Float[Tensor, "N L D"]:
        """Features of all L tokens, the last norm included."""
        x = self.token_embedding(token_ids) + self.positional_embedding
        for block in self.blocks:
            x = block(x, causal=True)
        return self.norm_out(x)


class ImageTower(nn.Module):
    """OpenCLIP image tower: all tokens after the last block, without final norm and projection."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width = config.image_width
        self.image_size = config.image_size
        self.patch_embedding = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.image_tokens, width))
        self.norm_in = LayerNorm(width)
        heads = width // config.image_head_channels
        self.blocks = nn.ModuleList(TowerBlock(width, heads) for _ in range(config.image_layers))

    def forward(self, picture: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N L D"]:
        """Tokens of pictures in [-1, 1] of any size."""
        prepared = prepare_picture(picture, self.image_size).to(self.patch_embedding.weight)
        patches = self.patch_embedding(prepared).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches).expand(patches.shape[0], 1, -1)
        x = self.norm_in(torch.cat([first, patches], dim=1) + self.positional_embedding.to(patches))
        for block in self.blocks:
            x = block(x, causal=False)
        return x


_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def prepare_picture(picture: Float[Tensor, "N 3 H W"], size: int = 224) -> Float[Tensor, "N 3 S S"]:
    """Blur if it shrinks, stretch to ``size`` squared (bicubic, corners aligned), and normalise as CLIP
    expects.

    Args:
        picture: in [-1, 1].
    """
    height, width = picture.shape[-2:]
    factors = (height / size, width / size)
    if max(factors) > 1:
        picture = _blur(picture, factors)
    resized = F.interpolate(picture, size=(size, size), mode="bicubic", align_corners=True)
    mean = resized.new_tensor(_CLIP_MEAN)[:, None, None]
    std = resized.new_tensor(_CLIP_STD)[:, None, None]
    return ((resized + 1.0) / 2.0 - mean) / std


def _blur(picture: Tensor, factors: tuple[float, float]) -> Tensor:
    """Separable Gaussian blur with reflected borders; ``factors`` are the shrink factors of rows and
    columns.
    """
    channels = picture.shape[1]
    for axis, factor in enumerate(factors):
        sigma = max((factor - 1.0) / 2.0, 0.001)
        taps = int(max(4.0 * sigma, 3))
        taps += 1 - taps % 2
        offset = torch.arange(taps, dtype=picture.dtype, device=picture.device) - taps // 2
        kernel = torch.exp(-(offset**2) / (2.0 * sigma**2))
        kernel = kernel / kernel.sum()
        reach = taps // 2
        pad = (0, 0, reach, reach) if axis == 0 else (reach, reach, 0, 0)
        shape = (channels, 1, taps, 1) if axis == 0 else (channels, 1, 1, taps)
        weight = kernel.reshape(1, 1, *shape[2:]).expand(shape)
        picture = F.conv2d(F.pad(picture, pad, mode="reflect"), weight, groups=channels)
    return picture


class ResamplerLayer(nn.Module):
    """Queries attend to image tokens and to themselves; then feed-forward."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        dim, inner = config.dim, config.head_channels * config.num_heads
        self.num_heads = config.num_heads
        self.norm_tokens = LayerNorm(dim)
        self.norm_queries = LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.norm_feed = LayerNorm(dim)
        self.feed_in = nn.Linear(dim, config.feedforward_mult * dim, bias=False)
        self.feed_out = nn.Linear(config.feedforward_mult * dim, dim, bias=False)

    def forward(
        self, tokens: Float[Tensor, "N L D"], queries: Float[Tensor, "N Q D"]
    ) -> Float[Tensor, "N Q D"]:
        """Queries after they have looked at the tokens and at themselves."""
        tokens, normed = self.norm_tokens(tokens), self.norm_queries(queries)
        q = self.to_q(normed).unflatten(-1, (self.num_heads, -1))
        k, v = self.to_kv(torch.cat([tokens, normed], dim=1)).chunk(2, dim=-1)
        k, v = (y.unflatten(-1, (self.num_heads, -1)) for y in (k, v))
        queries = queries + self.to_out(attention(q, k, v))
        return queries + self.feed_out(F.gelu(self.feed_in(self.norm_feed(queries))))


class Resampler(nn.Module):
    """Image tokens to a fixed number of context tokens per frame."""

    def __init__(self, config: ResamplerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResamplerConfig()
        self.queries = nn.Parameter(torch.empty(1, config.num_queries * config.num_frames, config.dim))
        self.proj_in = nn.Linear(config.embedding_dim, config.dim)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))
        self.proj_out = nn.Linear(config.dim, config.output_dim)
        self.norm_out = LayerNorm(config.output_dim)

    def forward(self, tokens: Float[Tensor, "B L E"] | Float[Tensor, "B T L E"]) -> Float[Tensor, "B Q D"]:
        """Context tokens.

        Args:
            tokens: of one picture, which all queries attend to; or of every frame, where each group of
                ``num_queries`` queries sees its own frame.
        Raises:
            ValueError: more or fewer frames than groups of queries.
        """
        batch, per_frame = tokens.shape[0], tokens.ndim == 4
        queries: Tensor = self.queries
        if per_frame:
            frames = tokens.shape[1]
            if frames != self.config.num_frames:
                raise ValueError(f"expected tokens of {self.config.num_frames} frames, got {frames}")
            queries = queries.reshape(frames, self.config.num_queries, -1).repeat(batch, 1, 1)
            tokens = tokens.flatten(0, 1)
        else:
            queries = queries.expand(batch, -1, -1)
        tokens = self.proj_in(tokens)
        for layer in self.layers:
            queries = layer(tokens, queries)
        out = self.norm_out(self.proj_out(queries))
        return out.reshape(batch, -1, out.shape[-1]) if per_frame else out


@dataclass(frozen=True)
class ContextConstants:
    """Context tokens that no video changes.

    Attributes:
        text: tokens of the published prompt.
        empty_text: tokens of the empty prompt, for guidance.
        image: tokens of a grey picture: what every video gets when its own pictures are not looked at.
    """

    text: Float[Tensor, "1 L D"]
    empty_text: Float[Tensor, "1 L D"]
    image: Float[Tensor, "1 Q D"]

    def to(self, device: torch.device | str) -> "ContextConstants":
        """The same on another device."""
        return ContextConstants(self.text.to(device), self.empty_text.to(device), self.image.to(device))


@torch.no_grad()
def compute_constants(
    text_tower: TextTower,
    image_tower: ImageTower,
    resampler: Resampler,
    token_ids: Int[Tensor, "1 L"] | None = None,
) -> ContextConstants:
    """Run the towers once; afterwards they are not needed for a network that does not look at each frame.

    Args:
        token_ids: of the prompt; None takes the published one.
    """
    length = text_tower.positional_embedding.shape[0]
    token_ids = prompt_tokens(PROMPT, length) if token_ids is None else token_ids
    grey = torch.zeros(1, 3, image_tower.image_size, image_tower.image_size)
    return ContextConstants(
        text=text_tower(token_ids),
        empty_text=text_tower(prompt_tokens("", length)),
        image=resampler(image_tower(grey)),
    )
