"""Learned masks of moving things, from weights that the user has placed on this machine; the package needs none.

A mask finder turns a window of frames and rough masks into better ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.tracks.licences import show_licence
from geo4d.tracks.weights import load_folder

_IMAGE_MEAN = torch.tensor([0.485, 0.456, 0.406])


_IMAGE_SPREAD = torch.tensor([0.229, 0.224, 0.225])


@runtime_checkable
class MaskFinder(Protocol):
    """Better masks from rough ones; ``name`` and ``licence`` as for ``Tracker``."""

    name: str
    licence: str

    def __call__(
        self, frames: Float[Tensor, "V H W 3"], rough: Bool[Tensor, "V H W"]
    ) -> Bool[Tensor, "V H W"]:
        """True on moving things."""
        ...


def refine_masks(
    frames: Iterable[Float[Tensor, "H W 3"]],
    rough: Iterable[Bool[Tensor, "H W"]],
    finder: MaskFinder,
    *,
    window: int = 24,
) -> Iterator[Bool[Tensor, "H W"]]:
    """Masks of a learned finder, window after window without overlap."""
    show_licence(finder)
    held: list[tuple[Tensor, Tensor]] = []

    def solve() -> Iterator[Tensor]:
        yield from finder(torch.stack([f for f, _ in held]), torch.stack([m for _, m in held]))

    for pair in zip(frames, rough, strict=True):
        held.append(pair)
        if len(held) == window:
            yield from solve()
            held = []
    if held:
        yield from solve()


class Sam2Finder:
    """SAM 2 through transformers, from weights on this machine; rough masks become box prompts.

    The largest rough regions of the frame that shows most of them are given as boxes and followed both ways.
    """

    name = "SAM 2"
    licence = "Apache-2.0 (SAM 2 weights by Meta; check the folder you installed)"

    def __init__(self, weights: str | Path, *, max_objects: int = 4, least_area: float = 0.003) -> None:
        """Args:
        weights: local folder of a transformers SAM 2 video model.
        max_objects: regions followed per window.
        least_area: smaller regions are left out, share of the picture.

        Raises:
            MissingExtraError: transformers is not installed or too old.
            CheckpointError: the folder is missing or holds something else.
        """
        self._model = load_folder("Sam2VideoModel", weights, "a SAM 2 video model")
        self._max_objects, self._least_area = max_objects, least_area

    @torch.inference_mode()
    def __call__(
        self, frames: Float[Tensor, "V H W 3"], rough: Bool[Tensor, "V H W"]
    ) -> Bool[Tensor, "V H W"]:
        seed = int(rough.flatten(1).sum(1).argmax())
        boxes = region_boxes(rough[seed], self._max_objects, self._least_area)
        result = torch.zeros_like(rough)
        if not boxes:
            return result
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        height, width = rough.shape[1:]
        side = int(self._model.config.image_size)
        # The library's processor needs torchvision; it does no more than this and the scaling of the boxes below.
        pixels = torch.nn.functional.interpolate(
            frames.permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True
        )
        pixels = (pixels - _IMAGE_MEAN[:, None, None]) / _IMAGE_SPREAD[:, None, None]
        session = Sam2VideoInferenceSession(
            video=pixels, video_height=height, video_width=width, dtype=torch.float32
        )
        scale = torch.tensor([side / width, side / height])
        names = list(range(1, len(boxes) + 1))
        for name, box in zip(names, boxes, strict=True):
            corners = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 2, 2) * scale
            labels = torch.tensor([[[2, 3]]], dtype=torch.int32)  # top left and bottom right of a box
            session.add_point_inputs(
                session.obj_id_to_idx(name), seed, {"point_coords": corners, "point_labels": labels}
            )
        session.obj_with_new_inputs = names
        self._model(inference_session=session, frame_idx=seed)
        for backwards in (False, True):
            for output in self._model.propagate_in_video_iterator(
                session, start_frame_idx=seed, reverse=backwards
            ):
                logits = torch.nn.functional.interpolate(
                    output.pred_masks.float(), (height, width), mode="bilinear"
                )
                result[output.frame_idx] |= (logits > 0).flatten(0, 1).any(0)
        return result


def region_boxes(mask: Bool[Tensor, "H W"], count: int, least_area: float) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of the largest connected regions."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8), connectivity=8)
    regions = [s for s in stats[1:] if s[cv2.CC_STAT_AREA] >= least_area * mask.numel()]
    regions.sort(key=lambda s: -int(s[cv2.CC_STAT_AREA]))
    return [(int(s[0]), int(s[1]), int(s[0] + s[2]), int(s[1] + s[3])) for s in regions[:count]]
