"""From a picture to what the network sees, and back to the picture's size: by the rule in ``preprocessor_config.json``.

The rules are those of transformers' own processors, which need torchvision or Pillow; here they are a few lines of torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geo4d.errors import CheckpointError

Rule = Literal["dpt", "zoedepth", "depth_pro"]
"""Whose processor: ``dpt`` (also Depth Anything) resizes with antialiasing, then takes mean and spread out; ``zoedepth``
mirrors the border first and resizes corner to corner; ``depth_pro`` takes mean and spread out, then resizes plainly."""

RULES: dict[str, Rule] = {
    "dpt": "dpt",
    "depth_anything": "dpt",
    "zoedepth": "zoedepth",
    "depth_pro": "depth_pro",
}
_FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters."""
_STANDARD = (0.5, 0.5, 0.5)
_DEFAULTS: dict[Rule, dict[str, Any]] = {
    "dpt": {
        "size": {"height": 384, "width": 384},
        "resample": 3,
        "keep_aspect_ratio": False,
        "ensure_multiple_of": 1,
    },
    "zoedepth": {
        "size": {"height": 384, "width": 512},
        "resample": 2,
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 32,
        "do_pad": True,
    },
    "depth_pro": {"size": {"height": 1536, "width": 1536}, "resample": 2},
}


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become the network's input.

    Attributes:
        rule: whose order of steps.
        size: (height, width) that the checkpoint asks for.
        keep_aspect: scale both sides alike, by the one of the two factors that is nearer to 1.
        cover: by the larger of the two factors instead.
        multiple: sides of the network's picture are multiples of it.
        filter: ``bilinear`` or ``bicubic``.
        mean, spread: of colours in [0, 1], taken out.
        pad: mirror the border (``zoedepth`` only).
    """

    rule: Rule
    size: tuple[int, int]
    keep_aspect: bool = False
    cover: bool = False
    multiple: int = 1
    filter: str = "bicubic"
    mean: tuple[float, ...] = _STANDARD
    spread: tuple[float, ...] = _STANDARD
    pad: bool = False

    def network_size(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the network's picture for pictures of ``source_size``."""
        height, width = (a + 2 * b for a, b in zip(source_size, self.border(source_size), strict=True))
        down, across = self.size[0] / height, self.size[1] / width
        if self.keep_aspect:
            nearer = across if abs(1 - across) < abs(1 - down) else down
            down = across = max(down, across) if self.cover else nearer
        sides = (round(length * f / self.multiple) for length, f in ((height, down), (width, across)))
        return tuple(max(1, side) * self.multiple for side in sides)  # type: ignore[return-value]

    def border(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that are mirrored at each side."""
        if not self.pad:
            return 0, 0
        return tuple(int(math.sqrt(side / 2) * 3) for side in source_size)  # type: ignore[return-value]

    def image(self, rgb: Float[Tensor, "N H W 3"]) -> Float[Tensor, "N 3 h w"]:
        """The network's pictures, from colours in [0, 1]."""
        x = rgb.movedim(-1, 1).float()
        size = self.network_size((x.shape[2], x.shape[3]))
        if self.rule == "depth_pro":
            return F.interpolate(self._normalised(x), size, mode=self.filter, align_corners=False)
        if self.rule == "zoedepth":
            rows, columns = self.border((x.shape[2], x.shape[3]))
            x = F.pad(x, (columns, columns, rows, rows), mode="reflect")
            return self._normalised(F.interpolate(x, size, mode=self.filter, align_corners=True))
        if size != tuple(x.shape[2:]):
            x = F.interpolate(x, size, mode=self.filter, align_corners=False, antialias=True).clamp(0, 1)
        return self._normalised(x)

    def back(self, maps: Float[Tensor, "N h w"], source_size: tuple[int, int]) -> Float[Tensor, "N H W"]:
        """Maps of the network at the size of the pictures, without the mirrored border."""
        rows, columns = self.border(source_size)
        size = (source_size[0] + 2 * rows, source_size[1] + 2 * columns)
        full = F.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
        return full[:, rows : rows + source_size[0], columns : columns + source_size[1]]

    def _normalised(self, x: Float[Tensor, "N 3 h w"]) -> Float[Tensor, "N 3 h w"]:
        mean, spread = (x.new_tensor(v)[:, None, None] for v in (self.mean, self.spread))
        return (x - mean) / spread


def read_preprocessing(
    family: str, settings: Mapping[str, Any], where: str, size: int | None = None
) -> Preprocessing:
    """The rule that a checkpoint states.

    Args:
        family: ``model_type`` of the checkpoint.
        settings: of ``preprocessor_config.json``.
        where: for messages.
        size: height and width to take instead of the stated ones.
    Raises:
        CheckpointError: settings that no processor of the family has, or that are not followed here.
    """
    rule = RULES[family]
    stated = {**_DEFAULTS[rule], **settings}
    padded = rule == "dpt" and stated.get("do_pad")
    if not stated.get("do_resize", True) or padded or stated.get("do_center_crop"):
        raise CheckpointError(
            f"{where}: expected preprocessing that resizes, without padding to a divisor and without a crop, got "
            f"{ {name: stated.get(name) for name in ('do_resize', 'do_pad', 'do_center_crop')} }"
        )
    filter_name = _FILTERS.get(int(stated["resample"]))
    if filter_name is None:
        raise CheckpointError(
            f"{where}: expected the filter 2 or 3 (bilinear, bicubic), got {stated['resample']}"
        )
    factor = stated.get("rescale_factor", 1 / 255) * 255 if stated.get("do_rescale", True) else 255.0
    mean, spread = stated.get("image_mean", _STANDARD), stated.get("image_std", _STANDARD)
    if not stated.get("do_normalize", True):
        mean, spread = (0.0,) * 3, (1.0,) * 3
    return Preprocessing(
        rule=rule,
        size=(size, size) if size is not None else _size(stated["size"], where),
        keep_aspect=bool(stated.get("keep_aspect_ratio", False)) and rule != "depth_pro",
        # The authors' own rule. The processor's gives small pictures of small frames: 294x518 of 360x640 where 518x924 is
        # made of the same frame at full size, and frames are made smaller here before they come.
        cover=family == "depth_anything",
        multiple=max(1, int(stated.get("ensure_multiple_of") or 1)) if rule != "depth_pro" else 1,
        filter=filter_name,
        mean=tuple(float(m) / factor for m in mean),
        spread=tuple(float(s) / factor for s in spread),
        pad=rule == "zoedepth" and bool(stated.get("do_pad", True)),
    )


def _size(stated: Any, where: str) -> tuple[int, int]:
    if isinstance(stated, int):
        return stated, stated
    if isinstance(stated, Mapping) and {"height", "width"} <= stated.keys():
        return int(stated["height"]), int(stated["width"])
    raise CheckpointError(f"{where}: expected a size with height and width, got {stated!r}")
