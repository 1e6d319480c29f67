"""Networks at the start of a stage: sizes, fresh weights, and what is taken over from published ones."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from geo4d.errors import CheckpointError
from geo4d.models.filling import fill_network, key_problems
from geo4d.models.geometrycrafter.config import (
    ImageEncoderConfig,
    ImageVAEConfig,
    PointMapVAEConfig,
    UNetConfig,
    Variant,
    from_published,
)
from geo4d.models.geometrycrafter.embedding import build_image_encoder
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapDecoder, PointMapVAE
from geo4d.models.geometrycrafter.weights import (
    LIGHT_DECODER,
    component_folder,
    component_tensors,
    read_config,
)
from geo4d.models.light_decoder import LightDecoder, LightDecoderConfig


@dataclass(frozen=True)
class Sizes:
    """Of all networks; the defaults are those of the release."""

    image_vae: ImageVAEConfig = field(default_factory=ImageVAEConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    point_map_vae: PointMapVAEConfig = field(default_factory=PointMapVAEConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    light_decoder: LightDecoderConfig = field(default_factory=LightDecoderConfig)

    def unet_for(self, variant: Variant) -> UNetConfig:
        """With the input channels of a variant."""
        latents = 3 if variant == "diff" else 2
        return UNetConfig(**{**asdict(self.unet), "in_channels": latents * self.image_vae.latent_channels})


def smallest_sizes() -> Sizes:
    """As narrow as the library's blocks allow, which want widths that divide by 32.

    Norms have 8 groups: of 4 channels or more, as in the published networks, and not of single channels.
    """
    return Sizes(
        ImageVAEConfig(
            block_out_channels=(32, 32, 64, 64), layers_per_block=1, sample_size=64, norm_num_groups=8
        ),
        ImageEncoderConfig(
            hidden_size=32, intermediate_size=64, projection_dim=32, num_hidden_layers=1, num_attention_heads=2,
            image_size=28,
        ),
        PointMapVAEConfig(
            enc_block_out_channels=(32, 32, 64, 64), enc_layers_per_block=1,
            dec_block_out_channels=(64, 64, 64, 64), dec_layers_per_block=1, norm_num_groups=8,
        ),
        UNetConfig(
            sample_size=8, block_out_channels=(32, 64, 64, 64), addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96, layers_per_block=1, cross_attention_dim=32,
            num_attention_heads=(2, 4, 4, 4), num_frames=8, norm_num_groups=8,
        ),
        LightDecoderConfig(widths=(128, 64, 32, 16)),
    )  # fmt: skip


def reduced_sizes() -> Sizes:
    """Those of ``smallest_sizes`` with a wider UNet and autoencoders of three levels instead of four.

    A picture of 64x128 gets a latent of 16x32 that way. With four levels its 8x16 pixels, four numbers each, are too few
    for the geometry: the truth came back with an AbsRel of .08, and no network behind it could do better.
    """
    sizes = smallest_sizes()
    unet = replace(
        sizes.unet, sample_size=16, block_out_channels=(64, 96, 128, 128), num_attention_heads=(4, 6, 8, 8),
        num_frames=16,
    )  # fmt: skip
    blocks, widths = sizes.image_vae.down_block_types[:3], (32, 32, 64)
    return replace(
        sizes,
        image_vae=replace(sizes.image_vae, down_block_types=blocks, block_out_channels=widths),
        point_map_vae=replace(
            sizes.point_map_vae, enc_down_block_types=blocks, enc_block_out_channels=widths,
            dec_block_out_channels=(64, 64, 64),
        ),
        unet=unet,
        light_decoder=replace(sizes.light_decoder, widths=sizes.light_decoder.widths[1:]),
    )  # fmt: skip


# Fresh --------------------------------------------------------------------------------------------------------------


def fresh_point_map_vae(
    config: PointMapVAEConfig, image_decoder: Mapping[str, Tensor] | None = None
) -> PointMapVAE:
    """A point-map VAE whose offset is zero, so that its latent starts as that of the disparity picture.

    The three heads start about ``USUAL_MAPS``. Layers over time start blind to the neighbouring frames: what the stage
    of single pictures teaches holds for every frame of a video, and the stage of videos goes on from there.

    Args:
        image_decoder: tensors of the image decoder, to start the trunk of the point-map decoder from; None: fresh.
    Raises:
        CheckpointError: the image decoder has another shape.
    """
    vae = PointMapVAE(config)
    decoder = vae.decoder
    assert isinstance(decoder, PointMapDecoder)
    nn.init.zeros_(vae.encoder.conv_out.weight)
    nn.init.zeros_(vae.encoder.conv_out.bias)  # type: ignore[arg-type]
    for layer in decoder.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.zeros_(layer.weight[:, :, 0])
            nn.init.zeros_(layer.weight[:, :, 2])
    for layer, usual in zip(decoder.time_conv_outs, USUAL_MAPS, strict=True):
        nn.init.constant_(layer.bias, usual)  # type: ignore[arg-type]
    if image_decoder is not None:
        trunk = trunk_of_image_decoder(image_decoder)
        own = {key: value for key, value in vae.decoder.state_dict().items() if not key.startswith(HEADS)}
        problems = key_problems(own, trunk)
        if problems:
            raise CheckpointError(f"the image decoder does not fit the point-map decoder: {problems}")
        vae.decoder.load_state_dict(trunk, strict=False)
    return vae


def fresh_light_decoder(config: LightDecoderConfig) -> LightDecoder:
    """A light decoder that starts about ``USUAL_MAPS``."""
    decoder = LightDecoder(config)
    with torch.no_grad():
        decoder.conv_out.bias.copy_(torch.tensor(USUAL_MAPS))  # type: ignore[union-attr]
    return decoder


USUAL_MAPS = (0.6, 0.0, 1.0)
"""Theta (62 degrees along the diagonal), log of the mean depth, mask (a surface): what a fresh decoder starts at."""

HEADS = ("out_blocks.", "time_conv_outs.")
"""Parts of the point-map decoder that the image decoder does not have."""

IMAGE_HEAD = ("conv_norm_out.", "conv_out.", "time_conv_out.")
"""Parts of the image decoder that the point-map decoder does not have."""


def trunk_of_image_decoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What both decoders share; the names are the same."""
    return {key: value for key, value in tensors.items() if not key.startswith(IMAGE_HEAD)}


def fresh_unet(config: UNetConfig) -> FrameTokenUNet:
    """A UNet with the library's own start."""
    return FrameTokenUNet(**asdict(config))


# From published weights ---------------------------------------------------------------------------------------------


def from_depthcrafter(
    tensors: Mapping[str, Tensor], config: UNetConfig, source: str = "the checkpoint"
) -> dict[str, Tensor]:
    """Tensors of a UNet from DepthCrafter's, which sees (noisy latent, frame latent); all names are the same.

    The generative variant sees (noisy, frame, prior): the kernels of the prior start at zero, so that at the start it
    denoises as DepthCrafter does. The deterministic variant sees (prior, frame): the prior takes the kernels of the
    noisy latent. The paper does not say how the authors did either. Tensors that fit already are taken as they are.

    Raises:
        CheckpointError: keys miss, are surplus, or have another shape; it says which.
    """
    latent = config.out_channels
    tensors = dict(tensors)
    first = tensors.get("conv_in.weight")
    if first is not None and first.shape[1] == 2 * latent and config.in_channels == 3 * latent:
        nothing = first.new_zeros(first.shape[0], latent, *first.shape[2:])
        tensors["conv_in.weight"] = torch.cat([first, nothing], dim=1)
    with torch.device("meta"):
        expected = FrameTokenUNet(**asdict(config)).state_dict()
    problems = key_problems(expected, tensors)
    if problems:
        raise CheckpointError(f"{source} does not fit a UNet of {config.in_channels} channels: {problems}")
    return tensors


def load_unet(root: Path, variant: Variant) -> tuple[FrameTokenUNet, UNetConfig]:
    """The UNet to start from: ``unet_diff`` or ``unet_determ`` of a folder, else DepthCrafter's in ``unet``.

    Raises:
        CheckpointError: there is none, or it does not fit.
    """
    folder = root / f"unet_{variant}"
    if not folder.is_dir():
        folder = root / "unet"
    if not folder.is_dir():
        raise CheckpointError(
            f"expected unet_{variant} or DepthCrafter's folder 'unet' in {root} to start from, found neither"
        )
    stated = from_published(UNetConfig, read_config(folder))
    latents = 3 if variant == "diff" else 2
    config = UNetConfig(**{**asdict(stated), "in_channels": latents * stated.out_channels})
    tensors = from_depthcrafter(component_tensors(folder), config, str(folder))
    with torch.device("meta"):
        unet = FrameTokenUNet(**asdict(config))
    return fill_network(unet, tensors, torch.float32, str(folder)), config


@dataclass
class FrozenNetworks:
    """Networks that a stage uses and does not train. Not a module: they are no part of a stage's saved state.

    Attributes:
        image_vae: in the role of Stable Video Diffusion's; with its decoder.
        image_encoder: in the role of CLIP's; None where a stage does not embed pictures.
        point_map_vae: None where it is not trained yet, or is what is trained.
    """

    image_vae: ImageVAE
    image_encoder: nn.Module | None = None
    point_map_vae: PointMapVAE | None = None

    def __post_init__(self) -> None:
        for network in self._networks():
            network.requires_grad_(False).eval()

    def _networks(self) -> Iterable[nn.Module]:
        return [n for n in (self.image_vae, self.image_encoder, self.point_map_vae) if n is not None]

    def on(self, device: torch.device) -> "FrozenNetworks":
        """The same networks, moved if they are elsewhere."""
        if self.image_vae.quant_conv.weight.device != device:
            for network in self._networks():
                network.to(device)
        return self


def load_image_vae(root: Path) -> ImageVAE:
    """The image VAE of a folder, with its decoder.

    Raises:
        CheckpointError: missing or foreign.
    """
    folder = component_folder(root, "vae")
    config = from_published(ImageVAEConfig, read_config(folder))
    with torch.device("meta"):
        vae = ImageVAE(config, with_decoder=True)
    return fill_network(vae, component_tensors(folder), torch.float32, str(folder))


def load_image_encoder(root: Path) -> nn.Module:
    """The frame encoder of a folder.

    Raises:
        CheckpointError: missing or foreign.
    """
    folder = component_folder(root, "image_encoder")
    config = from_published(ImageEncoderConfig, read_config(folder))
    with torch.device("meta"):
        encoder = build_image_encoder(config)
    return fill_network(
        encoder, component_tensors(folder, without="position_ids"), torch.float32, str(folder)
    )


def load_point_map_vae(root: Path) -> PointMapVAE:
    """The point-map VAE of a folder.

    Raises:
        CheckpointError: missing or foreign.
    """
    folder = component_folder(root, "point_map_vae")
    config = from_published(PointMapVAEConfig, read_config(folder))
    with torch.device("meta"):
        vae = PointMapVAE(config)
    return fill_network(vae, component_tensors(folder), torch.float32, str(folder))


def load_light_decoder(root: Path) -> LightDecoder | None:
    """The light decoder of a folder; None where there is none.

    Raises:
        CheckpointError: foreign.
    """
    folder = root / LIGHT_DECODER
    if not folder.is_dir():
        return None
    config = from_published(LightDecoderConfig, read_config(folder))
    with torch.device("meta"):
        decoder = LightDecoder(config)
    return fill_network(decoder, component_tensors(folder), torch.float32, str(folder))


# What is trained ----------------------------------------------------------------------------------------------------

BLOCKS = ("SpatioTemporalResBlock", "TransformerSpatioTemporalModel", "SpaceTimeBlock")
"""Classes of the blocks that sharded training gathers one by one."""

TEMPORAL = (
    "temporal_res_block.",
    "time_mixer.",
    "time_conv_outs.",
    "temporal_transformer_blocks.",
    "time_pos_embed.",
)
"""Parts of names of layers that mix frames, in the point-map decoder and in the UNet."""


def is_temporal(name: str) -> bool:
    """Whether a parameter belongs to a layer that mixes frames."""
    return any(part in name for part in TEMPORAL)


def is_idle(name: str) -> bool:
    """Whether a parameter of the UNet cannot change its answer.

    Cross-attention to one token ignores its queries and keys, and the norm before the queries. They get no gradient;
    training several processes together needs to know.
    """
    return (
        "attn2.to_q." in name
        or "attn2.to_k." in name
        or ("transformer_blocks." in name and ".norm2." in name)
    )


def choose_trained(network: nn.Module, *, temporal_only: bool) -> None:
    """Let gradients flow to all layers, or to those that mix frames; idle parameters stay frozen."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not is_idle(name) and (is_temporal(name) or not temporal_only))
