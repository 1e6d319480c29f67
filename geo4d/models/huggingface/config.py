"""Families of depth networks, what their numbers mean, and the settings of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from geo4d.errors import CheckpointError
from geo4d.models.monodepth.pipeline import Alignment

PREFIX = "hf:"
"""In front of the name of a repository or folder."""

Meaning = Literal["relative disparity", "metric depth", "focal-free inverse depth"]
"""What a network's output is.

``relative disparity``: grows towards the camera, scale and shift unknown, 0 at infinity. ``metric depth``: metres.
``focal-free inverse depth``: 1/m after a factor of picture width over focal length, which the network gives, too.
"""


@dataclass(frozen=True)
class HuggingFaceOptions:
    """Settings of one run; see ``MonoDepthConfig`` for those of the same name.

    Attributes:
        size: height and width that the network's picture is sized by, instead of the checkpoint's own; smaller is faster.
        output: what the network's output is, where the checkpoint's own statement is wrong.
    """

    max_side: int = 640
    window_length: int = 16
    window_stride: int = 8
    alignment: Alignment = "steady"
    field: bool = True
    size: int | None = None
    output: Meaning | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 14:
            raise ValueError(f"expected a size of at least 14 pixels, got {self.size}")


def _depth_anything(config: Mapping[str, Any]) -> Meaning:
    return "metric depth" if config.get("depth_estimation_type") == "metric" else "relative disparity"


def _dpt(config: Mapping[str, Any]) -> Meaning:
    """MiDaS checkpoints give disparity; those on DINOv2 were trained on depth in metres (NYU, KITTI)."""
    backbone = config.get("backbone_config") or {}
    return "metric depth" if backbone.get("model_type") == "dinov2" else "relative disparity"


def _depth_pro(config: Mapping[str, Any]) -> Meaning:
    if not config.get("use_fov_model"):
        raise CheckpointError(
            "expected a Depth Pro checkpoint with a field of view (use_fov_model), got one without: its depth has no unit"
        )
    return "focal-free inverse depth"


FAMILIES: dict[str, Callable[[Mapping[str, Any]], Meaning]] = {
    "depth_anything": _depth_anything,
    "dpt": _dpt,
    "zoedepth": lambda config: "metric depth",
    "depth_pro": _depth_pro,
}
"""``model_type`` of a checkpoint -> what its output is. Depth Anything V1 and V2, DPT and MiDaS, ZoeDepth, Depth Pro."""


def meaning_of(config: Mapping[str, Any], where: str) -> Meaning:
    """What the output of a checkpoint is.

    Raises:
        CheckpointError: a family that is not known here, or that needs more than pictures.
    """
    family = config.get("model_type")
    if family == "prompt_depth_anything":
        raise CheckpointError(
            f"{where}: Prompt Depth Anything needs a measured depth of every picture as its prompt, and this model is "
            "only given pictures; use Depth Anything V2 or Depth Pro"
        )
    if family not in FAMILIES:
        raise CheckpointError(
            f"expected a depth network of one of the families {', '.join(FAMILIES)} in {where}, got {family!r}"
        )
    return FAMILIES[family](config)
