"""Sizes of the networks (field names as in the published config files) and settings of a run."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from geo4d.models.deep_cache import require_interval

logger = logging.getLogger(__name__)

Variant = Literal["diff", "determ"]
Precision = Literal["float32", "bfloat16", "float16"]
Decoder = Literal["full", "light"]

_DOWN_BLOCKS = ("DownEncoderBlock2D",) * 4


@dataclass(frozen=True)
class UNetConfig:
    """Space-time UNet. ``in_channels``: 12 generative (noisy, video, prior), 8 deterministic (prior, video)."""

    sample_size: int | None = 96
    in_channels: int = 12
    out_channels: int = 4
    down_block_types: tuple[str, ...] = (
        *("CrossAttnDownBlockSpatioTemporal",) * 3,
        "DownBlockSpatioTemporal",
    )
    up_block_types: tuple[str, ...] = ("UpBlockSpatioTemporal", *("CrossAttnUpBlockSpatioTemporal",) * 3)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    addition_time_embed_dim: int = 256
    projection_class_embeddings_input_dim: int = 768
    layers_per_block: int | tuple[int, ...] = 2
    cross_attention_dim: int | tuple[int, ...] = 1024
    transformer_layers_per_block: int | tuple[int, ...] = 1
    num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20)
    num_frames: int = 25
    norm_num_groups: int = 32


@dataclass(frozen=True)
class ImageVAEConfig:
    """Stable Video Diffusion's image autoencoder."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = _DOWN_BLOCKS
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    sample_size: int = 768
    scaling_factor: float = 0.18215
    force_upcast: bool = True
    norm_num_groups: int = 32

    @property
    def reduction(self) -> int:
        """Side of the square of pixels that one pixel of the latent stands for: 8 with the published four levels."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class PointMapVAEConfig:
    """Point-map autoencoder: offset encoder (enc_) and temporal decoder with three heads (dec_)."""

    in_channels: int = 4
    latent_channels: int = 4
    enc_down_block_types: tuple[str, ...] = _DOWN_BLOCKS
    enc_block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    enc_layers_per_block: int = 2
    dec_block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    dec_layers_per_block: int = 2
    out_channels: tuple[int, ...] = (1, 1, 1)
    mid_block_add_attention: bool = True
    offset_scale_factor: float = 0.1
    norm_num_groups: int = 32

    @property
    def reduction(self) -> int:
        """As of the image autoencoder."""
        return 2 ** (len(self.dec_block_out_channels) - 1)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """CLIP ViT-H/14 image encoder."""

    hidden_size: int = 1280
    intermediate_size: int = 5120
    projection_dim: int = 1024
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0


@dataclass(frozen=True)
class SchedulerConfig:
    """The part of the published Euler scheduler that sampling uses: Karras levels, v-prediction, continuous time."""

    prediction_type: str = "v_prediction"
    use_karras_sigmas: bool = True
    timestep_type: str = "continuous"
    sigma_min: float = 0.002
    sigma_max: float = 700.0

    def __post_init__(self) -> None:
        expected = ("v_prediction", True, "continuous")
        got = (self.prediction_type, self.use_karras_sigmas, self.timestep_type)
        if got != expected:
            raise ValueError(f"expected a scheduler with {expected}, got {got}; no other kind is known here")


@dataclass(frozen=True)
class GeometryCrafterConfig:
    """Settings of one run; the defaults are the published command line's.

    Attributes:
        num_steps: sampling steps of the generative variant; the deterministic one always takes one.
        guidance_scale: 1: no guidance (one pass per step).
        cache_interval: steps from one full pass of the UNet to the next; in between its deep levels' output is used again
            (``models.deep_cache``). 1: every step in full, as published. Not together with guidance.
        window_length: frames that the UNet sees at once.
        overlap: frames that neighbouring windows share; 0 joins windows without blending.
        decoder: ``full`` is the point-map VAE's own; ``light`` the small one distilled from it, where there is one
            (``geo4d train light-decoder``).
        decode_chunk: frames that the decoder sees at once. Its temporal layers end at the chunk, so this changes the
            result a little, unless ``decode_overlap`` is used.
        decode_overlap: frames that neighbouring decode chunks share and cross-fade over; 0 as published.
        decode_frames_at_once: frames of a chunk that the decoder's spatial layers treat together; None: all. Lowers the
            memory that a chunk needs and changes nothing else.
        encode_chunk: frames that go through prior and encoders together; changes memory, not the result.
        decode_tile: edge in pixels of the square tiles that the decoder sees; None: the whole frame, as published.
        encode_tile: the same for the two encoders.
        tile_overlap: share of a tile's edge that it shares with the next one and cross-fades over.
        force_projection: True: points lie on the pinhole rays of one focal per frame (or video).
        force_fixed_focal: with ``force_projection``: one focal for the whole video instead of one per frame.
        nearest_resize: resize decoded depth and mask to the source size without interpolating.
        max_side: longer side of the network's frames in pixels; larger videos are reduced to it. The network's sides
            are multiples of 64; a side may round up by half of that.
        height, width: size of the network's frames; None: planned from the video's size and ``max_side``.
        size_multiple: what the planned sides are multiples of; the networks need 64.
        fps, motion_bucket, noise_augmentation: constants of the conditioning.
        unet_dtype, encoder_dtype, decoder_dtype, prior_dtype: type of the weights and activations of the UNet and the
            image embedding, the encoders, the decoder, and the per-frame prior. Decoder and prior keep
            norms and last layers in float32.
        offload: keep a network on the device only while its stage runs.
        prior_cache_bytes: maps of the per-frame prior kept between the first pass over the video and the
            windows; what does not fit is computed again (same values).
    """

    num_steps: int = 5
    guidance_scale: float = 1.0
    cache_interval: int = 1
    window_length: int = 110
    overlap: int = 25
    decoder: Decoder = "full"
    decode_chunk: int = 8
    decode_overlap: int = 0
    decode_frames_at_once: int | None = None
    encode_chunk: int = 8
    decode_tile: int | None = None
    encode_tile: int | None = None
    tile_overlap: float = 0.25
    force_projection: bool = True
    force_fixed_focal: bool = True
    nearest_resize: bool = False
    max_side: int = 1024
    height: int | None = None
    width: int | None = None
    size_multiple: int = 64
    fps: float = 7.0
    motion_bucket: float = 127.0
    noise_augmentation: float = 0.02
    unet_dtype: Precision = "float16"
    encoder_dtype: Precision = "float32"
    decoder_dtype: Precision = "float32"
    prior_dtype: Precision = "float32"
    offload: bool = False
    prior_cache_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        at_least_one = ("num_steps", "window_length", "decode_chunk", "encode_chunk", "size_multiple")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.decoder not in ("full", "light"):
            raise ValueError(f"expected decoder full or light, got {self.decoder!r}")
        require_interval(self.cache_interval)
        if self.cache_interval > 1 and self.guidance_scale > 1:
            raise ValueError(
                f"expected guidance_scale 1 with cache_interval {self.cache_interval}, got {self.guidance_scale}"
            )
        if not 0 <= self.overlap < self.window_length:
            raise ValueError(
                f"expected 0 <= overlap < window_length, got overlap {self.overlap} and window {self.window_length}"
            )
        if not 0 <= self.decode_overlap < self.decode_chunk:
            raise ValueError(
                f"expected 0 <= decode_overlap < decode_chunk, got {self.decode_overlap} and {self.decode_chunk}"
            )
        if not 0 <= self.tile_overlap <= 0.5:
            raise ValueError(f"expected tile_overlap in [0, 0.5], got {self.tile_overlap}")
        if self.decode_frames_at_once is not None and self.decode_frames_at_once < 1:
            raise ValueError(f"expected decode_frames_at_once >= 1 or None, got {self.decode_frames_at_once}")
        for name in ("decode_tile", "encode_tile"):
            tile = getattr(self, name)
            if tile is not None and (tile < 64 or tile % 8):
                raise ValueError(f"expected {name} to be a multiple of 8 of at least 64 pixels, got {tile}")
        if (self.height is None) != (self.width is None):
            raise ValueError("expected height and width together, or neither")
        for name in ("height", "width"):
            side = getattr(self, name)
            if side is not None and (side < 1 or side % self.size_multiple):
                raise ValueError(f"expected {name} to be a multiple of {self.size_multiple}, got {side}")


_Config = TypeVar("_Config")


def from_published(kind: type[_Config], published: Mapping[str, Any]) -> _Config:
    """Make a config from a published ``config.json``; keys that the network does not read are ignored, and logged.

    The published files carry bookkeeping of the libraries that wrote them, so unknown keys are no error here.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    ignored = sorted(key for key in published if key not in known and not key.startswith("_"))
    if ignored:
        logger.info("%s: ignoring keys %s", kind.__name__, ", ".join(ignored))
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in published.items() if key in known}
    return kind(**values)
