"""Space-time UNet of the DynamiCrafter lineage.

Shapes: B windows, T frames, N = B T, C channels, H W latent pixels, L context tokens. Activations are [N, C,
    H, W],
with channels innermost in memory where the weights are, so that tokens [N, H W, C] and the joint view of all
frames [B, C, T, H W] are free.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geo4d.models.deep_cache import DeepCache
from geo4d.models.geo4d.blocks import (
    CrossAttention,
    EmbeddingMLP,
    ResidualBlock,
    SpatialBlock,
    SpatialTransformer,
    TemporalBlock,
    TemporalTransformer,
    Upsample,
)
from geo4d.models.geo4d.config import UNetConfig
from geo4d.models.layers import GroupNorm, as_layout_of, set_norm_groups

Timesteps = Int[Tensor, " B"] | Int[Tensor, "B T"] | Float[Tensor, " B"] | Float[Tensor, "B T"]


@dataclass(frozen=True)
class ContextKeys:
    """Keys and values of every cross-attention for one fixed context: they depend on no latent and no
    timestep.

    Attributes:
        layers: for each cross-attention in order: text keys, text values, image keys, image values,
            [B or 1, tokens, heads, d].
        num_tokens: length of the context they come from.
    """

    layers: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    num_tokens: int


class Stage(nn.Module):
    """One residual block with its transformers, and what follows it at the end of a level on the way up."""

    def __init__(
        self, config: UNetConfig, in_channels: int, out_channels: int, attend: bool, upsample: bool = False
    ) -> None:
        super().__init__()
        head = config.num_head_channels
        depth = config.transformer_depth
        self.residual = ResidualBlock(in_channels, out_channels, 4 * config.model_channels)
        self.spatial: SpatialTransformer | None = None
        self.temporal: TemporalTransformer | None = None
        self.upsample: Upsample | None = None
        if attend:
            self.spatial = SpatialTransformer(out_channels, head, depth, config.context_dim)
            self.temporal = TemporalTransformer(out_channels, head, out_channels // head, depth)
        if upsample:
            self.upsample = Upsample(out_channels)

    def forward(
        self,
        x: Float[Tensor, "N C H W"],
        embedding: Float[Tensor, "N D"],
        keys: list[tuple[Tensor, ...]],
        num_frames: int,
        per_frame: bool,
    ) -> Float[Tensor, "N C2 H2 W2"]:
        """Residual block, transformers over space and time where the stage has them, then its change of size."""
        x = self.residual(x, embedding, num_frames)
        if self.spatial is not None and self.temporal is not None:
            x = self.spatial(x, keys, num_frames, per_frame)
            x = self.temporal(x, num_frames)
        return x if self.upsample is None else self.upsample(x)


class MiddleStage(nn.Module):
    """Residual block, transformers, residual block at the coarsest size."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.first = Stage(config, channels, channels, attend=True)
        self.second = ResidualBlock(channels, channels, 4 * config.model_channels)

    def forward(
        self,
        x: Float[Tensor, "N C H W"],
        embedding: Float[Tensor, "N D"],
        keys: list[tuple[Tensor, ...]],
        num_frames: int,
        per_frame: bool,
    ) -> Float[Tensor, "N C H W"]:
        """The stage with the smallest maps; sizes stay."""
        x = self.first(x, embedding, keys, num_frames, per_frame)
        return self.second(x, embedding, num_frames)


class UNet(nn.Module):
    """The denoising network: v-prediction for ``out_channels`` latent channels from those and the colour latent.

    ``down`` alternates stages and, between levels, strided convolutions; ``up`` has one stage for every skip.
    """

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        width, levels = config.model_channels, len(config.channel_mult)
        self.time_embedding = EmbeddingMLP(width, 4 * width)
        self.fps_embedding = EmbeddingMLP(width, 4 * width)
        self.conv_in = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.initial_attention = TemporalTransformer(
            width, config.num_head_channels, config.initial_heads, config.transformer_depth
        )
        self.down = nn.ModuleList()
        channels, skips = width, [width]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                self.down.append(Stage(config, channels, mult * width, config.has_attention(level)))
                channels = mult * width
                skips.append(channels)
            if level < levels - 1:
                self.down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                skips.append(channels)
        self.middle = MiddleStage(config, channels)
        self.up = nn.ModuleList()
        for level in reversed(range(levels)):
            for block in range(config.num_res_blocks + 1):
                out = config.channel_mult[level] * width
                upsample = level > 0 and block == config.num_res_blocks
                stage = Stage(config, channels + skips.pop(), out, config.has_attention(level), upsample)
                self.up.append(stage)
                channels = out
        self.norm_out = GroupNorm(32, channels, eps=1e-5)
        self.conv_out = nn.Conv2d(channels, config.out_channels, 3, padding=1)
        self.gradient_checkpointing = False
        set_norm_groups(self, config.norm_num_groups)

    def compile_transformers(self, backend: str = "inductor") -> None:
        """Compile the blocks of all transformers, in place.

        Blocks of one width and size share their code, so there are a handful of graphs; the whole network as one graph
        did not get through the compiler in 200 seconds even when a tenth as wide.
        """
        for module in self.modules():
            if isinstance(module, SpatialBlock | TemporalBlock):
                module.compile(backend=backend)

    def _keys_by_stage(self, keys: ContextKeys) -> dict[int, list[tuple[Tensor, ...]]]:
        """Keys and values of the cross-attentions of every stage that has any, by the identity of the stage."""
        layers = iter(keys.layers)
        stages = [
            module for module in self.modules() if isinstance(module, Stage) and module.spatial is not None
        ]
        return {id(stage): [next(layers) for _ in range(self.config.transformer_depth)] for stage in stages}

    def context_keys(self, context: Float[Tensor, "B L D"]) -> ContextKeys:
        """Keys and values of every cross-attention, to be used for any number of calls.

        Raises:
            ValueError: no image token behind the text tokens.
        """
        text_tokens = self.config.text_tokens
        if context.shape[1] <= text_tokens:
            raise ValueError(
                f"expected more than {text_tokens} context tokens (text, then image), got {context.shape[1]}"
            )
        crosses = [module for module in self.modules() if isinstance(module, CrossAttention)]
        layers = [cross.project(context.to(cross.to_q.weight), text_tokens) for cross in crosses]
        return ContextKeys(tuple(layers), context.shape[1])

    def forward(
        self,
        x: Float[Tensor, "B C T H W"],
        timestep: Timesteps,
        context: Float[Tensor, "B L D"] | ContextKeys,
        fps: Float[Tensor, " B"] | Int[Tensor, " B"],
        cache: DeepCache | None = None,
    ) -> Float[Tensor, "B C_out T H W"]:
        """Predict v.

        Args:
            x: noisy latent, then colour latent, on the channel axis.
            timestep: one per window or one per frame.
            context: text tokens, then image tokens; or their projections (:meth:`context_keys`). When there
                are ``image_tokens_per_frame`` image tokens for every frame, each frame sees its own; else all
                see all.
            fps: frames per second of each window.
            cache: of these windows and this context, for the steps of one sampling run; None computes everything.
        Raises:
            ValueError: a size that the skip connections cannot follow.
        """
        b, _, t, h, w = x.shape
        config = self.config
        multiple = 2 ** (len(config.channel_mult) - 1)
        if h % multiple or w % multiple:
            raise ValueError(
                f"expected a latent size divisible by {multiple}, got {h} x {w}; see video.resize"
            )
        keys = context if isinstance(context, ContextKeys) else self.context_keys(context)
        per_frame = keys.num_tokens == config.text_tokens + config.image_tokens_per_frame * t

        embedding = self.time_embedding(timestep.reshape(-1).float())
        embedding = embedding.reshape(b, -1, embedding.shape[-1]) + self.fps_embedding(fps.float())[:, None]
        embedding = embedding.expand(b, t, -1).flatten(0, 1)

        keys_of = self._keys_by_stage(keys)

        def run(stage: nn.Module, hidden: Tensor) -> Tensor:
            inner = stage.first if isinstance(stage, MiddleStage) else stage
            stage_keys = keys_of.get(id(inner), [])
            arguments = (hidden, embedding, stage_keys, t, per_frame)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                return checkpoint(stage, *arguments, use_reentrant=False)
            return stage(*arguments)

        # Blocks of the outermost level: its skips are the first on the way down and the last on the way up.
        outermost = config.num_res_blocks + 1
        folded = as_layout_of(self.conv_in.weight, x.transpose(1, 2).flatten(0, 1))
        hidden = self.initial_attention(self.conv_in(folded), t)
        skips = [hidden]
        reads = cache is not None and cache.holds
        for module in self.down[: outermost - 1] if reads else self.down:
            hidden = run(module, hidden) if isinstance(module, Stage) else module(hidden)
            skips.append(hidden)
        if cache is not None and reads:
            hidden = cache.read()
        else:
            hidden = run(self.middle, hidden)
            for module in self.up[:-outermost]:
                hidden = run(module, torch.cat([hidden, skips.pop()], dim=1))
            if cache is not None:
                cache.keep(hidden)
        for module in self.up[-outermost:]:
            hidden = run(module, torch.cat([hidden, skips.pop()], dim=1))
        out = self.conv_out(F.silu(self.norm_out(hidden), inplace=True))
        return out.unflatten(0, (b, t)).transpose(1, 2)
