"""Sizes of MoGe networks and settings of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

ENCODERS: dict[str, tuple[int, int, int]] = {
    "dinov2_vits14": (384, 12, 6),
    "dinov2_vitb14": (768, 12, 12),
    "dinov2_vitl14": (1024, 24, 16),
}
"""Encoder name -> width, blocks, heads."""

Behaviour = Literal["pinned", "newest"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class MoGeConfig:
    """MoGe-1 (field names as in the published ``model_config``); the defaults are the released ViT-L's.

    Attributes:
        trained_area_range: pixels of the network's image at resolution level 0 and 9.
        remap_output: how the head's numbers become points; only ``exp`` was released.
        output_mask, split_head: the head has a mask, in a branch of its own; only true was released.
    """

    encoder: str = "dinov2_vitl14"
    remap_output: str = "exp"
    output_mask: bool = True
    split_head: bool = True
    intermediate_layers: int = 4
    dim_proj: int = 512
    dim_upsample: tuple[int, ...] = (256, 128, 64)
    dim_times_res_block_hidden: int = 2
    num_res_blocks: int = 2
    trained_area_range: tuple[float, float] = (250_000, 500_000)
    last_conv_channels: int = 32
    last_conv_size: int = 1
    res_block_norm: str = "group_norm"
    last_res_blocks: int = 0

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ValueError(f"expected one of {', '.join(ENCODERS)} as the encoder, got {self.encoder!r}")
        released = {
            "remap_output": "exp",
            "output_mask": True,
            "split_head": True,
            "res_block_norm": "group_norm",
            "last_res_blocks": 0,
        }
        for name, value in released.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"expected {name} = {value!r} (no other was released), got {getattr(self, name)!r}"
                )

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> "MoGeConfig":
        """From the ``model_config`` of a checkpoint.

        Raises:
            ValueError: a key that is not known here.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(published) - known)
        if unknown:
            raise ValueError(f"expected keys of {sorted(known)}, got also {unknown}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in published.items()}
        return cls(**values)


NORMS = ("none", "layer_norm", "group_norm")
RESAMPLERS = ("conv_transpose", "bilinear", "nearest", "pixel_shuffle")
ACTIVATIONS = ("relu", "silu", "elu", "leaky_relu")


@dataclass(frozen=True)
class StackConfig:
    """A stack of convolutions over a pyramid (field names as published); one entry per level, coarse first.

    Attributes:
        dim_in, dim_out: channels of inputs and outputs; None: those of the level itself, not projected.
        dim_res_blocks: channels of the levels.
        resamplers: how each level is enlarged to the next.
    """

    dim_in: tuple[int | None, ...]
    dim_res_blocks: tuple[int, ...]
    dim_out: tuple[int | None, ...]
    resamplers: tuple[str, ...]
    num_res_blocks: tuple[int, ...]
    dim_times_res_block_hidden: int = 1
    res_block_in_norm: str = "layer_norm"
    res_block_hidden_norm: str = "group_norm"
    activation: str = "relu"

    def __post_init__(self) -> None:
        for value, known in (
            (self.res_block_in_norm, NORMS),
            (self.res_block_hidden_norm, NORMS),
            (self.activation, ACTIVATIONS),
            *((kind, RESAMPLERS) for kind in self.resamplers),
        ):
            if value not in known:
                raise ValueError(f"expected one of {', '.join(known)}, got {value!r}")

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> "StackConfig":
        """From a part of the ``model_config`` of a checkpoint, where one value may stand for all levels.

        Raises:
            ValueError: a key that is not known here, or lists of different lengths.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(published) - known):
            raise ValueError(f"expected keys of {sorted(known)}, got also {unknown}")
        count = len(published["dim_res_blocks"])
        values: dict[str, Any] = {"num_res_blocks": 1, **published}
        for name in ("dim_in", "dim_res_blocks", "dim_out", "num_res_blocks", "resamplers"):
            length = count - (name == "resamplers")
            value = values[name]
            values[name] = tuple(value) if isinstance(value, list | tuple) else (value,) * length
            if len(values[name]) != length:
                raise ValueError(f"expected {length} values of {name}, got {len(values[name])}")
        return cls(**values)


@dataclass(frozen=True)
class MoGe2Config:
    """MoGe-2, without its normals.

    Attributes:
        layers: blocks of the encoder whose features are taken, numbered from 0.
        dim_out: channels of the features.
        scale_dims: widths of the head that says how many metres the unit has.
        num_tokens_range: patches at resolution level 0 and 9.
    """

    encoder: str
    layers: tuple[int, ...]
    dim_out: int
    neck: StackConfig
    points_head: StackConfig
    mask_head: StackConfig
    scale_dims: tuple[int, ...]
    num_tokens_range: tuple[int, int] = (1200, 3600)

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> "MoGe2Config":
        """From the ``model_config`` of a checkpoint.

        Raises:
            ValueError: a part is missing or not known here.
        """
        parts = {"encoder", "neck", "points_head", "mask_head", "scale_head", "remap_output"}
        if missing := sorted(parts - set(published)):
            raise ValueError(f"expected the parts {sorted(parts)}, {', '.join(missing)} missing")
        if published["remap_output"] != "exp":
            raise ValueError(f"expected remap_output = 'exp', got {published['remap_output']!r}")
        encoder = published["encoder"]
        if encoder["backbone"] not in ENCODERS:
            raise ValueError(
                f"expected one of {', '.join(ENCODERS)} as the encoder, got {encoder['backbone']!r}"
            )
        depth, taken = ENCODERS[encoder["backbone"]][1], encoder["intermediate_layers"]
        low, high = published.get("num_tokens_range", (1200, 3600))
        return cls(
            encoder=encoder["backbone"],
            layers=tuple(range(depth - taken, depth)) if isinstance(taken, int) else tuple(taken),
            dim_out=encoder["dim_out"],
            neck=StackConfig.from_published(published["neck"]),
            points_head=StackConfig.from_published(published["points_head"]),
            mask_head=StackConfig.from_published(published["mask_head"]),
            scale_dims=tuple(published["scale_head"]["dims"]),
            num_tokens_range=(int(low), int(high)),
        )


@dataclass(frozen=True)
class MoGeOptions:
    """Settings of one run.

    Attributes:
        behaviour: ``pinned``: the version that GeometryCrafter uses as its prior; ``newest``: the last published
            one, which sizes the image by tokens and solves for the focal length after resizing to the source.
        resolution_level: 0 (small, fast) to 9.
        force_projection: put the points on the pinhole rays of the recovered focal length.
        solver: for focal and shift; ``published`` stops as early as the authors' call does, for comparisons.
        fov_x_deg: known horizontal field of view in degrees; None: recovered.
        dtype: of weights and activations; the norms, the last layers and the points stay float32.
        max_side: longer side of the frames that the predictor asks for; its network never sees more than that.
        batch: frames that go through the network together.
    """

    behaviour: Behaviour = "pinned"
    resolution_level: int = 9
    force_projection: bool = True
    solver: Literal["converged", "published"] = "converged"
    fov_x_deg: float | None = None
    dtype: Precision = "float32"
    max_side: int = 1024
    batch: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.resolution_level <= 9:
            raise ValueError(f"expected resolution_level in 0..9, got {self.resolution_level}")
        if self.fov_x_deg is not None and not 0 < self.fov_x_deg < 180:
            raise ValueError(f"expected fov_x_deg in (0, 180), got {self.fov_x_deg}")
        for name in ("batch", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.behaviour not in ("pinned", "newest"):
            raise ValueError(f"expected behaviour 'pinned' or 'newest', got {self.behaviour!r}")
