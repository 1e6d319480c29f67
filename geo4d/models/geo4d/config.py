"""Sizes of the Geo4D networks, presets, and reading of the authors' option names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from geo4d.diffusion.schedules import ScheduleConfig
from geo4d.errors import CheckpointError


@dataclass(frozen=True)
class UNetConfig:
    """Space-time UNet.

    Attributes:
        in_channels: noisy latent and colour latent together.
        out_channels: channels of the noisy latent.
        model_channels: width of the first level.
        channel_mult: width of every level, in units of ``model_channels``.
        num_res_blocks: residual blocks per level on the way down (one more on the way up).
        attention_resolutions: down-sampling factors of the levels that have attention.
        num_head_channels: width of an attention head.
        transformer_depth: blocks per transformer.
        context_dim: width of the context tokens.
        initial_heads: heads of the temporal transformer behind the first convolution.
        text_tokens: leading context tokens that belong to the text.
        image_tokens_per_frame: size of the group of image tokens that a frame sees when there is one per
            frame.
        norm_num_groups: groups of every group norm.
    """

    in_channels: int = 20
    out_channels: int = 16
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    num_head_channels: int = 64
    transformer_depth: int = 1
    context_dim: int = 1024
    initial_heads: int = 8
    text_tokens: int = 77
    image_tokens_per_frame: int = 16
    norm_num_groups: int = 32

    def has_attention(self, level: int) -> bool:
        """Whether the blocks of a level carry a spatial and a temporal transformer."""
        return 2**level in self.attention_resolutions


@dataclass(frozen=True)
class VAEConfig:
    """First-stage autoencoder with the two adaptors.

    Attributes:
        channels: width of the first level.
        channel_mult: width of every level, in units of ``channels``; each but the last halves the size.
        num_res_blocks: residual blocks per level of the encoder (one more in the decoder).
        latent_channels: channels of the latent.
        in_channels: image channels.
        adaptor_res_blocks: residual blocks of the encoder adaptor (one more in the decoder adaptor).
        adaptor_out_channels: channels of the raw uncertainty.
        norm_num_groups: groups of every group norm.
    """

    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    latent_channels: int = 4
    in_channels: int = 3
    adaptor_res_blocks: int = 1
    adaptor_out_channels: int = 1
    norm_num_groups: int = 32

    @property
    def downsampling(self) -> int:
        """Pixels per latent pixel along one side."""
        return 2 ** (len(self.channel_mult) - 1)


@dataclass(frozen=True)
class ResamplerConfig:
    """Perceiver that turns image tokens into context tokens.

    Attributes:
        dim: width inside.
        depth: layers.
        head_channels, num_heads: attention heads.
        num_queries: queries per frame.
        num_frames: groups of queries.
        embedding_dim: width of the image tokens.
        output_dim: width of the context tokens.
        feedforward_mult: width of the feed-forward part, in units of ``dim``.
    """

    dim: int = 1024
    depth: int = 4
    head_channels: int = 64
    num_heads: int = 12
    num_queries: int = 16
    num_frames: int = 16
    embedding_dim: int = 1280
    output_dim: int = 1024
    feedforward_mult: int = 4


@dataclass(frozen=True)
class CLIPConfig:
    """OpenCLIP towers (ViT-H-14).

    Attributes:
        embed_dim: width of the joint space (only unused projections have it).
        text_width, text_layers, text_heads: text tower.
        context_length, vocabulary: tokens of a prompt, entries of the token table.
        text_skip_last: blocks at the end of the text tower that are left out.
        image_width, image_layers, image_head_channels: image tower.
        image_size, patch_size: pixels.
    """

    embed_dim: int = 1024
    text_width: int = 1024
    text_layers: int = 24
    text_heads: int = 16
    context_length: int = 77
    vocabulary: int = 49408
    text_skip_last: int = 1
    image_width: int = 1280
    image_layers: int = 32
    image_head_channels: int = 80
    image_size: int = 224
    patch_size: int = 14

    @property
    def image_tokens(self) -> int:
        """Tokens of one image, the class token included."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class Geo4DConfig:
    """The whole network.

    Attributes:
        unet, vae, resampler, clip, schedule: the parts.
        latent_scale: factor on the codec's latent before diffusion.
        per_frame_image_tokens: every frame's own picture feeds the cross-attention (off in the released
            model, whose context is therefore a constant).
        latent_groups: what each group of ``vae.latent_channels`` latent channels means, in order; fewer for a network of
            some modalities (``widths.with_modalities``).
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    clip: CLIPConfig = field(default_factory=CLIPConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    latent_scale: float = 0.18215
    per_frame_image_tokens: bool = False
    latent_groups: tuple[str, ...] = ("point_map", "ray_direction", "ray_moment", "disparity")

    def to_dict(self) -> dict[str, Any]:
        """JSON values; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Geo4DConfig":
        """Read what :meth:`to_dict` wrote.

        Raises:
            CheckpointError: an unknown or missing entry.
        """
        parts = {
            "unet": UNetConfig,
            "vae": VAEConfig,
            "resampler": ResamplerConfig,
            "clip": CLIPConfig,
            "schedule": ScheduleConfig,
        }
        try:
            read = {k: parts[k](**_tuples(v)) if k in parts else v for k, v in _tuples(values).items()}
            return cls(**read)
        except TypeError as error:
            raise CheckpointError(
                f"expected the config of a Geo4D network, got something else: {error}"
            ) from error


def full() -> Geo4DConfig:
    """The released network: 1.44 G parameters in the UNet."""
    return Geo4DConfig()


def small() -> Geo4DConfig:
    """The widths of the recorded end-to-end runs: the UNet a tenth as wide, the VAE a quarter, the rest a sixteenth.

    The classes and numbers of levels are the released ones; transformers outside the UNet have fewer layers. For tests.
    """
    return Geo4DConfig(
        unet=UNetConfig(model_channels=32, num_head_channels=16, context_dim=64),
        vae=VAEConfig(channels=32),
        resampler=ResamplerConfig(
            dim=64, depth=2, head_channels=16, num_heads=3, embedding_dim=80, output_dim=64
        ),
        clip=CLIPConfig(
            embed_dim=64,
            text_width=64,
            text_layers=3,
            text_heads=4,
            image_width=80,
            image_layers=3,
            image_head_channels=20,
        ),
    )


PRESETS = {"full": full, "small": small}
"""Name -> function that returns the config."""


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


_UNET_FIXED: dict[str, Any] = {
    "addition_attention": True,
    "fs_condition": True,
    "image_cross_attention": True,
    "image_cross_attention_scale_learnable": False,
    "temporal_attention": True,
    "temporal_conv": True,
    "temporal_selfatt_only": True,
    "use_causal_attention": False,
    "use_linear": True,
    "use_relative_position": False,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "conv_resample": True,
    "dims": 2,
}
"""Options of the authors' UNet that change its structure; other values describe a network that is not
Geo4D.
"""

_UNET_IGNORED = {"dropout", "use_checkpoint", "temporal_length", "default_fs", "use_fp16"}
"""Options that matter to training only, or to nothing."""


def unet_from_published(options: Mapping[str, Any]) -> UNetConfig:
    """UNet size from the option names of the authors' yaml.

    Raises:
        CheckpointError: an option that this network does not have, or has with another value.
    """
    names = {
        "in_channels",
        "out_channels",
        "model_channels",
        "channel_mult",
        "num_res_blocks",
        "attention_resolutions",
        "num_head_channels",
        "transformer_depth",
        "context_dim",
    }
    _reject(options, names, _UNET_FIXED, _UNET_IGNORED, "UNet")
    return UNetConfig(**_tuples({k: v for k, v in options.items() if k in names}))


def vae_from_published(options: Mapping[str, Any]) -> VAEConfig:
    """Codec size from the option names of the authors' yaml (``ddconfig``, ``adaptorconfig``, ``embed_dim``).

    Raises:
        CheckpointError: a layout that this codec does not have.
    """
    main, adaptor = dict(options["ddconfig"]), dict(options["adaptorconfig"])
    fixed = {"attn_resolutions": [], "double_z": True}
    sizes = {"ch", "ch_mult", "num_res_blocks", "z_channels", "in_channels", "out_ch"}
    ignored = {"dropout", "resolution"}
    _reject(main, sizes, fixed, ignored, "codec")
    _reject(adaptor, sizes, fixed, ignored, "codec adaptor")
    first_width = main["ch"] * main["ch_mult"][0]
    if (
        list(adaptor["ch_mult"]) != [1]
        or adaptor["ch"] != first_width
        or main["out_ch"] != main["in_channels"]
        or options.get("embed_dim", main["z_channels"]) != main["z_channels"]
    ):
        raise CheckpointError(
            "expected codec adaptors of one level as wide as the codec's first, equal input and output channels, "
            f"and an embedding as wide as the latent; got {main} and {adaptor}"
        )
    return VAEConfig(
        channels=main["ch"],
        channel_mult=tuple(main["ch_mult"]),
        num_res_blocks=main["num_res_blocks"],
        latent_channels=main["z_channels"],
        in_channels=main["in_channels"],
        adaptor_res_blocks=adaptor["num_res_blocks"],
        adaptor_out_channels=adaptor["out_ch"],
    )


def resampler_from_published(options: Mapping[str, Any]) -> ResamplerConfig:
    """Resampler size from the option names of the authors' yaml."""
    names = {
        "dim": "dim",
        "depth": "depth",
        "dim_head": "head_channels",
        "heads": "num_heads",
        "num_queries": "num_queries",
        "video_length": "num_frames",
        "embedding_dim": "embedding_dim",
        "output_dim": "output_dim",
        "ff_mult": "feedforward_mult",
    }
    _reject(options, set(names), {}, set(), "resampler")
    return ResamplerConfig(**{names[k]: v for k, v in options.items()})


def clip_from_published(options: Mapping[str, Any], layer: str = "penultimate") -> CLIPConfig:
    """Tower sizes from an OpenCLIP model config; ``layer`` is where the text tower is read.

    Raises:
        CheckpointError: an unknown layer name or an option that these towers do not have.
    """
    skips = {"penultimate": 1, "last": 0}
    if layer not in skips:
        raise CheckpointError(f"expected the text layer to be one of {sorted(skips)}, got {layer!r}")
    text, image = dict(options["text_cfg"]), dict(options["vision_cfg"])
    _reject(
        text,
        {"context_length", "heads", "layers", "vocab_size", "width"},
        {"mlp_ratio": 4.0},
        set(),
        "text tower",
    )
    image_names = {"head_width", "image_size", "layers", "patch_size", "width"}
    _reject(image, image_names, {"mlp_ratio": 4.0}, set(), "image tower")
    return CLIPConfig(
        embed_dim=options["embed_dim"],
        text_width=text["width"],
        text_layers=text["layers"],
        text_heads=text["heads"],
        context_length=text["context_length"],
        vocabulary=text["vocab_size"],
        text_skip_last=skips[layer],
        image_width=image["width"],
        image_layers=image["layers"],
        image_head_channels=image.get("head_width", 64),
        image_size=image["image_size"],
        patch_size=image["patch_size"],
    )


def from_published(options: Mapping[str, Any], clip: Mapping[str, Any] | None = None) -> Geo4DConfig:
    """The whole network from the ``model.params`` section of the authors' yaml.

    Args:
        options: that section.
        clip: OpenCLIP config of both towers; None is ViT-H-14.
    Raises:
        CheckpointError: options that describe another kind of network.
    """
    fixed = {
        "parameterization": "v",
        "modality": "pc_ray_cross_depth",
        "conditioning_key": "hybrid",
        "scale_by_std": False,
        "uncond_type": "empty_seq",
        "fps_condition_type": "fps",
    }
    for name, value in fixed.items():
        if options.get(name, value) != value:
            raise CheckpointError(f"expected {name} = {value!r} for a Geo4D network, got {options[name]!r}")
    text = options.get("cond_stage_config", {}).get("params", {})
    layer = text.get("layer", "penultimate")
    return Geo4DConfig(
        unet=unet_from_published(options["unet_config"]["params"]),
        vae=vae_from_published(options["first_stage_config"]["params"]),
        resampler=resampler_from_published(options["image_proj_stage_config"]["params"]),
        clip=CLIPConfig() if clip is None else clip_from_published(clip, layer),
        schedule=ScheduleConfig(
            num_timesteps=options.get("timesteps", 1000),
            beta_start=options.get("linear_start", 0.00085),
            beta_end=options.get("linear_end", 0.012),
            zero_terminal_snr=options.get("rescale_betas_zero_snr", False),
            dynamic_rescale=options.get("use_dynamic_rescale", False),
            base_scale=options.get("base_scale", 0.7),
        ),
        latent_scale=options.get("scale_factor", 1.0),
        per_frame_image_tokens=options.get("cross_attention", False),
    )


def _reject(
    options: Mapping[str, Any], known: set[str], fixed: Mapping[str, Any], ignored: set[str], part: str
) -> None:
    for name, value in options.items():
        if name in fixed:
            if value != fixed[name]:
                raise CheckpointError(f"expected {name} = {fixed[name]!r} in the {part}, got {value!r}")
        elif name not in known and name not in ignored:
            raise CheckpointError(f"unknown option {name} = {value!r} of the {part}; known: {sorted(known)}")
