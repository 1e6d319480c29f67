"""The two autoencoders: Stable Video Diffusion's image VAE and the point-map VAE that shares its latent space.

Legend of shape letters: N frames, C channels, H W pixels, h w latent size (an eighth).
"""

import re
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geo4d.errors import MissingExtraError
from geo4d.models.geometrycrafter.blocks import (
    GROUPS,
    MidBlock,
    SpaceTimeBlock,
    UpBlock,
    normalise,
    over_time,
    time_conv,
)
from geo4d.models.geometrycrafter.config import ImageVAEConfig, PointMapVAEConfig
from geo4d.models.layers import set_norm_groups, use_channels_last
from geo4d.models.light_decoder import LightDecoder

try:
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import TemporalDecoder
    from diffusers.models.autoencoders.vae import Encoder
except ImportError as error:
    raise MissingExtraError("diffusers", "geometrycrafter", "GeometryCrafter") from error


def _recompute_library_blocks(coder: nn.Module) -> None:
    """As the library's whole models let their coders do; there is no call for a coder alone."""
    coder.gradient_checkpointing = True  # type: ignore[assignment]
    coder._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]


class ImageVAE(nn.Module):
    """Stable Video Diffusion's image encoder and, for training losses only, its frozen temporal decoder."""

    def __init__(self, config: ImageVAEConfig, with_decoder: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(
            in_channels=config.in_channels,
            out_channels=config.latent_channels,
            down_block_types=config.down_block_types,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            double_z=True,
        )
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.decoder: nn.Module | None = None
        if with_decoder:
            self.decoder = TemporalDecoder(
                in_channels=config.latent_channels,
                out_channels=config.out_channels,
                block_out_channels=config.block_out_channels,  # type: ignore[arg-type]
                layers_per_block=config.layers_per_block,
            )
        set_norm_groups(self, config.norm_num_groups)

    def encode_moments(self, image: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N moments h w"]:
        """Mean (first half of the channels) and log-variance of the latent of images in [-1, 1]."""
        return self.quant_conv(self.encoder(image.to(self.quant_conv.weight.dtype)))

    def encode(self, image: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N c h w"]:
        """Mode of the latent, not multiplied by the scaling factor."""
        return self.encode_moments(image).chunk(2, dim=1)[0]

    def recompute_decoder(self) -> None:
        """Let gradients pass through the decoder with its activations computed once more: less memory, more time."""
        if self.decoder is not None:
            _recompute_library_blocks(self.decoder)

    def decode(self, latent: Float[Tensor, "N c h w"], num_frames: int) -> Float[Tensor, "N 3 H W"]:
        """Images of clips of ``num_frames`` consecutive latents (unscaled).

        Raises:
            ValueError: the decoder was not loaded.
        """
        if self.decoder is None:
            raise ValueError("expected an ImageVAE made with with_decoder=True")
        indicator = latent.new_zeros(latent.shape[0] // num_frames, num_frames)
        return self.decoder(latent.to(self.quant_conv.weight.dtype), indicator, num_frames)


class PointMapHead(nn.ModuleDict):
    """Features at full resolution to one map; mixes neighbouring frames once. The last layer stays float32."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        width = in_channels // 2
        super().__init__(
            {
                "0": nn.GroupNorm(GROUPS, in_channels, eps=1e-6),
                "2": nn.Conv2d(in_channels, width, 3, padding=1),
                "3": SpaceTimeBlock(width, width),
                "5": nn.Conv2d(width, out_channels, 1),
            }
        )

    def forward(
        self, features: Float[Tensor, "N C H W"], num_frames: int, at_once: int | None = None
    ) -> Float[Tensor, "N c H W"]:
        """Channels of the point map from decoder features; the last layer in float32.

        Args:
            at_once: frames that are worked on together; None takes all.
        """
        norm = cast(nn.GroupNorm, self["0"])
        parts = features.split(at_once or len(features))
        hidden = torch.cat([self["2"](F.relu(normalise(part, norm, activation=False))) for part in parts])
        hidden = F.relu(self["3"](hidden, num_frames, at_once))
        return torch.cat([self["5"](part.float()) for part in hidden.split(at_once or len(hidden))])


class PointMapDecoder(nn.Module):
    """SVD's temporal decoder trunk with three heads: theta (intrinsic), log depth, mask.

    Attributes:
        frames_at_once: frames that the layers without memory of time treat together; None: all. Changes the memory
            that is needed, not the result.
        checkpointing: compute the activations of every block once more in the backward pass: less memory, more time.
    """

    frames_at_once: int | None = None
    checkpointing: bool = False

    def __init__(self, config: PointMapVAEConfig) -> None:
        super().__init__()
        widths = config.dec_block_out_channels
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid_block = MidBlock(widths[-1], config.dec_layers_per_block)
        reverse = widths[::-1]
        self.up_blocks = nn.ModuleList(
            UpBlock(
                reverse[max(i - 1, 0)],
                width,
                num_layers=config.dec_layers_per_block + 1,
                upsample=i < len(reverse) - 1,
            )
            for i, width in enumerate(reverse)
        )
        self.out_blocks = nn.ModuleList(PointMapHead(widths[0], c) for c in config.out_channels)
        self.time_conv_outs = nn.ModuleList(
            nn.Conv3d(c, c, (3, 1, 1), padding=(1, 0, 0)) for c in config.out_channels
        )

    def cast(self, dtype: torch.dtype) -> "PointMapDecoder":
        """Run in ``dtype``, in place; norms and the last layer of every head stay float32."""
        for name, module in self.named_modules():
            last = name.startswith("time_conv_outs") or re.fullmatch(r"out_blocks\.\d+\.5", name)
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear) and not last:
                module.to(dtype)
        use_channels_last(self)
        return self

    def _run(self, block: nn.Module, *inputs: Any) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def forward(
        self, latent: Float[Tensor, "N c h w"], num_frames: int
    ) -> tuple[Float[Tensor, "N 1 H W"], Float[Tensor, "N 1 H W"], Float[Tensor, "N 1 H W"]]:
        """Decode clips of ``num_frames`` consecutive latents; clips do not see each other.

        Args:
            latent: not multiplied by the scaling factor.
            num_frames: frames per clip; divides N.
        Returns:
            theta (tangent of half the diagonal field of view), log depth, mask (positive: valid); float32.
        """
        latent = latent.to(self.conv_in.weight.dtype, memory_format=torch.channels_last)
        at_once = self.frames_at_once
        features = self.conv_in(latent)
        for block in (self.mid_block, *self.up_blocks):
            features = self._run(block, features, num_frames, at_once)
        maps = []
        for head, mix in zip(self.out_blocks, self.time_conv_outs, strict=True):
            clips = over_time(self._run(head, features, num_frames, at_once), num_frames)
            mixed = time_conv(clips, cast(nn.Conv3d, mix))
            maps.append(mixed.transpose(1, 2).reshape(len(latent), -1, *features.shape[-2:]))
        theta, log_depth, mask = maps
        return theta, log_depth, mask


class PointMapVAE(nn.Module):
    """Point maps to and from the latent space of the image VAE.

    Attributes:
        decoder: its own, or a light one that was distilled from it.
    """

    def __init__(self, config: PointMapVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(
            in_channels=config.in_channels,
            out_channels=config.latent_channels,
            down_block_types=config.enc_down_block_types,
            block_out_channels=config.enc_block_out_channels,
            layers_per_block=config.enc_layers_per_block,
            double_z=False,
            mid_block_add_attention=config.mid_block_add_attention,
        )
        self.decoder: PointMapDecoder | LightDecoder = PointMapDecoder(config)
        set_norm_groups(self, config.norm_num_groups)

    def recompute(self) -> None:
        """Compute activations once more in the backward pass: less memory, more time, the same gradients."""
        _recompute_library_blocks(self.encoder)
        if isinstance(self.decoder, PointMapDecoder):
            self.decoder.checkpointing = True

    def encode_offset(self, maps: Float[Tensor, "N 4 H W"]) -> Float[Tensor, "N c h w"]:
        """What the geometry adds to the latent of the disparity image, before the factor ``offset_scale_factor``.

        Args:
            maps: theta, log depth, disparity in [-1, 1], mask as -1 or 1.
        """
        return self.encoder(maps.to(self.encoder.conv_in.weight.dtype))

    def encode_moments(
        self, maps: Float[Tensor, "N 4 H W"], image_vae: ImageVAE
    ) -> Float[Tensor, "N moments h w"]:
        """Mean (first half of the channels) and log-variance of the latent, not multiplied by the scaling factor.

        They are the image VAE's moments of the disparity picture, the mean moved by the offset.

        Args:
            maps: see ``encode_offset``.
        """
        disparity = maps[:, 2:3].expand(-1, 3, -1, -1)
        mean, log_variance = image_vae.encode_moments(disparity).chunk(2, dim=1)
        offset = self.config.offset_scale_factor * self.encode_offset(maps)
        return torch.cat([mean + offset.to(mean.dtype), log_variance], dim=1)

    def encode(self, maps: Float[Tensor, "N 4 H W"], image_vae: ImageVAE) -> Float[Tensor, "N c h w"]:
        """Mode of the latent, not multiplied by the scaling factor."""
        return self.encode_moments(maps, image_vae).chunk(2, dim=1)[0]

    def decode(
        self, latent: Float[Tensor, "N c h w"], num_frames: int
    ) -> tuple[Float[Tensor, "N 1 H W"], Float[Tensor, "N 1 H W"], Float[Tensor, "N 1 H W"]]:
        """See ``PointMapDecoder.forward``."""
        theta, log_depth, mask = self.decoder(latent, num_frames)
        return theta, log_depth, mask
