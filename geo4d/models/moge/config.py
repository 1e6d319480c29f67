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
