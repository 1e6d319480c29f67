"""First-stage autoencoder (eight times smaller per side) and the two adaptors of the point-map codec.

Shapes: N pictures, C channels, H W pixels, h w latent pixels.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.models.geo4d.config import VAEConfig
from geo4d.models.layers import GroupNorm, as_layout_of, attention, set_norm_groups
from geo4d.models.light_decoder import LightDecoder


class ResidualBlock(nn.Module):
    """Two normalised convolutions and a skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(32, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(32, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H W"]:
        """Two convolutions beside a skip."""
        hidden = self.conv1(F.silu(self.norm1(x), inplace=True))
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        return self.skip(x) + hidden


class PixelAttention(nn.Module):
    """One head over all pixels of a picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Attention with one head among all pixels of a picture, beside a skip."""
        n, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        q, k, v = (p(tokens)[:, :, None] for p in (self.to_q, self.to_k, self.to_v))
        out = self.to_out(attention(q, k, v))
        return x + out.reshape(n, h, w, c).permute(0, 3, 1, 2)


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ResidualBlock(channels, channels)
        self.attention = PixelAttention(channels)
        self.second = ResidualBlock(channels, channels)

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        """Residual block, attention, residual block."""
        return self.second(self.attention(self.first(x)))


class Downsample(nn.Module):
    """Strided convolution; zeros are padded on the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H2 W2"]:
        """Half the height and width; padded at the right and lower border alone, as published."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H2 W2"]:
        """Twice the height and width."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one size and the change of size behind them."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, resample: nn.Module | None
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(widths))
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H2 W2"]:
        """The residual blocks of one size, then the change of size."""
        for block in self.blocks:
            x = block(x)
        return self.resample(x)


class Encoder(nn.Module):
    """Picture to mean and log-variance of the latent."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.channel_mult]
        self.conv_in = nn.Conv2d(config.in_channels, config.channels, 3, padding=1)
        self.levels = nn.ModuleList()
        for index, (before, width) in enumerate(zip([config.channels, *widths[:-1]], widths, strict=True)):
            resample = Downsample(width) if index < len(widths) - 1 else None
            self.levels.append(Level(before, width, config.num_res_blocks, resample))
        self.middle = Middle(widths[-1])
        self.norm_out = GroupNorm(32, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 h w"]:
        """Moments (means, then log variances) before the last 1 x 1 convolution."""
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x)), inplace=True))


class Decoder(nn.Module):
    """Latent to the feature map in front of the last norm (:meth:`features`), and to the picture."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.channel_mult]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1])
        # Coarsest level first, in the order in which they run.
        self.levels = nn.ModuleList()
        before = widths[-1]
        for index, width in reversed(list(enumerate(widths))):
            resample = Upsample(width) if index > 0 else None
            self.levels.append(Level(before, width, config.num_res_blocks + 1, resample))
            before = width
        self.norm_out = GroupNorm(32, before, eps=1e-6)
        self.conv_out = nn.Conv2d(before, config.in_channels, 3, padding=1)

    def features(self, z: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C2 H W"]:
        """Features at the size of the picture, before the last norm."""
        hidden = self.middle(self.conv_in(z))
        for level in self.levels:
            hidden = level(hidden)
        return hidden

    def picture(self, features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H W"]:
        """The picture of such features."""
        return self.conv_out(F.silu(self.norm_out(features), inplace=True))


class EncoderAdaptor(nn.Module):
    """Small residual network in front of the encoder. Trained with the codec; inference does not use it."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width = config.channels * config.channel_mult[0]
        self.conv_in = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.level = Level(width, width, config.adaptor_res_blocks, None)
        self.norm_out = GroupNorm(32, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, config.in_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Maps in the network's normalisation -> input of the picture encoder, as a change of the maps."""
        return x + self.conv_out(F.silu(self.norm_out(self.level(self.conv_in(x))), inplace=True))


class DecoderAdaptor(nn.Module):
    """The decoder's last feature map to a raw uncertainty."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width = config.channels * config.channel_mult[0]
        self.level = Level(width, width, config.adaptor_res_blocks + 1, None)
        self.norm_out = GroupNorm(32, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, config.adaptor_out_channels, 3, padding=1)

    def forward(self, features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H W"]:
        """Raw uncertainty at the size of the picture."""
        return self.conv_out(F.silu(self.norm_out(self.level(features)), inplace=True))


class VAE(nn.Module):
    """Codec of pictures and geometry maps. Latents here are as the codec gives them, without the diffusion
    scale.
    """

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VAEConfig()
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
        self.post_quant_conv = nn.Conv2d(latent, latent, 1)
        self.encoder_adaptor = EncoderAdaptor(config)
        self.decoder_adaptor = DecoderAdaptor(config)
        set_norm_groups(self, config.norm_num_groups)

    def moments(self, picture: Float[Tensor, "N C H W"], *, adapt: bool = False) -> Float[Tensor, "N C2 h w"]:
        """Mean, then log-variance of the latent.

        Args:
            picture: in [-1, 1].
            adapt: send the picture through the encoder adaptor first.
        """
        picture = as_layout_of(self.encoder.conv_in.weight, picture)
        if adapt:
            picture = self.encoder_adaptor(picture)
        return self.quant_conv(self.encoder(picture))

    def decode(self, z: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C2 H W"]:
        """Picture of a latent; not clamped."""
        features = self.decoder.features(self.post_quant_conv(as_layout_of(self.decoder.conv_in.weight, z)))
        return self.decoder.picture(features)

    def decode_with_uncertainty(self, z: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C2 H W"]:
        """Picture and, as further channels, its raw uncertainty."""
        features = self.decoder.features(self.post_quant_conv(as_layout_of(self.decoder.conv_in.weight, z)))
        return torch.cat([self.decoder.picture(features), self.decoder_adaptor(features)], dim=1)


class LightPointVAE(nn.Module):
    """A light decoder in the place of the codec that decodes point maps."""

    def __init__(self, decoder: LightDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def decode_with_uncertainty(self, z: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C2 H W"]:
        """Picture and, as further channels, its raw uncertainty."""
        return torch.cat(self.decoder(z), dim=1)


def sample_moments(
    moments: Float[Tensor, "N C2 h w"], noise: Float[Tensor, "N C h w"] | None
) -> Float[Tensor, "N C h w"]:
    """A sample of the posterior: mean + exp(logvar / 2) * noise with the log-variance in [-30, 20].

    Without noise it is the mean.
    """
    mean, logvar = moments.float().chunk(2, dim=1)
    if noise is None:
        return mean
    return mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise.to(mean)
