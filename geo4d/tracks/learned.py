"""Learned trackers, detectors and matchers, from weights that the user has placed on this machine; none is needed.

Each says under which licence its weights come (``licences.show_licence``). ``TRACKERS`` in ``sources.py`` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.tracks.matches import Matches
from geo4d.tracks.weights import load_folder, load_state


class DiskDetector:
    """DISK interest points through kornia, from weights that the user has placed on this machine."""

    name = "DISK"
    licence = "Apache-2.0 (DISK weights as distributed with kornia; check the file you installed)"

    def __init__(self, weights: str | Path, *, max_points: int = 1024) -> None:
        """Args:
        weights: state dictionary of ``kornia.feature.DISK``.
        max_points: per frame.

        Raises:
            MissingExtraError: kornia is not installed.
            CheckpointError: the weights are missing or do not fit.
        """
        try:
            from kornia.feature import DISK
        except ImportError as error:
            raise MissingExtraError("kornia", "learned-tracks", "the DISK detector") from error
        self._model = load_state(DISK(), weights, "DISK")
        self._max_points = max_points

    @torch.inference_mode()
    def __call__(self, frame: Float[Tensor, "H W 3"]) -> Float[Tensor, "N 2"]:
        found = self._model(frame.permute(2, 0, 1)[None], self._max_points, pad_if_not_divisible=True)[0]
        order = found.detection_scores.argsort(descending=True)
        return found.keypoints[order] + 0.5


class SuperPointDetector:
    """SuperPoint interest points through transformers, from weights that the user has placed on this machine."""

    name = "SuperPoint"
    licence = "Magic Leap: academic and non-commercial research only (check the folder you installed)"

    def __init__(self, weights: str | Path, *, max_points: int = 1024) -> None:
        """Args:
        weights: local folder of a transformers SuperPoint model.
        max_points: per frame.

        Raises:
            MissingExtraError: transformers is not installed.
            CheckpointError: the folder is missing or holds something else.
        """
        self._model = load_folder("SuperPointForKeypointDetection", weights, "a SuperPoint detector")
        self._max_points = max_points

    @torch.inference_mode()
    def __call__(self, frame: Float[Tensor, "H W 3"]) -> Float[Tensor, "N 2"]:
        found = self._model(frame.permute(2, 0, 1)[None])
        seen = found.mask[0].bool()
        order = found.scores[0][seen].argsort(descending=True)[: self._max_points]
        size = torch.tensor([frame.shape[1], frame.shape[0]])
        return found.keypoints[0][seen][order] * size + 0.5


class QueryTracker:
    """A tracker that takes a video and queries, as CoTracker does, in the form of a ``Tracker``.

    The model is a TorchScript file or any callable:
    ``(video [1, V, 3, H, W] in 0..255, queries [1, N, 3] of (frame, x, y)) -> (tracks [1, V, N, 2], visible [1, V, N])``
    with pixel centres at integers. Visibility may be boolean or a probability.
    """

    def __init__(
        self, model: str | Path | Callable[[Tensor, Tensor], Any], *, name: str, licence: str
    ) -> None:
        """Args:
        model: a TorchScript file, or what the user has loaded.
        name: shown to the user.
        licence: of its weights, shown before the first use.

        Raises:
            CheckpointError: the file is missing or is no TorchScript program.
        """
        self.name, self.licence = name, licence
        if isinstance(model, str | Path):
            if not Path(model).is_file():
                raise CheckpointError(f"expected a TorchScript tracker at {model}, found nothing")
            try:
                self._model: Callable[[Tensor, Tensor], Any] = torch.jit.load(str(model), map_location="cpu")
            except RuntimeError as error:
                raise CheckpointError(f"{model} is not a TorchScript program: {error}") from error
        else:
            self._model = model

    @torch.inference_mode()
    def __call__(
        self, frames: Float[Tensor, "V H W 3"], queries: Float[Tensor, "N 2"], query_frame: int
    ) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
        times = torch.full((len(queries), 1), float(query_frame))
        asked = torch.cat([times, queries - 0.5], 1)[None]
        tracks, visible = self._model(frames.permute(0, 3, 1, 2)[None] * 255, asked)[:2]
        expected = (1, len(frames), len(queries))
        if tuple(tracks.shape) != (*expected, 2) or tuple(visible.shape[:3]) != expected:
            raise ValueError(
                f"{self.name}: expected tracks {(*expected, 2)} and visibility {expected}, got "
                f"{tuple(tracks.shape)} and {tuple(visible.shape)}"
            )
        return tracks[0].float() + 0.5, visible.reshape(expected)[0] > 0.5


class LightGlueMatcher:
    """LightGlue with SuperPoint through transformers, from weights that the user has placed on this machine."""

    name = "LightGlue with SuperPoint"
    licence = (
        "LightGlue Apache-2.0; SuperPoint by Magic Leap: academic and non-commercial research only "
        "(check the folder you installed)"
    )

    def __init__(self, weights: str | Path) -> None:
        """Args:
        weights: local folder of a transformers LightGlue model (it holds its SuperPoint, too).

        Raises:
            MissingExtraError: transformers is not installed.
            CheckpointError: the folder is missing or holds something else.
        """
        self._model = load_folder("LightGlueForKeypointMatching", weights, "a LightGlue matcher")

    @torch.inference_mode()
    def __call__(self, first: Float[Tensor, "H W 3"], second: Float[Tensor, "H W 3"]) -> Matches:
        # The library's processor needs torchvision; it makes the pictures grey, no more is needed at our sizes.
        grey = torch.stack([first, second]) @ torch.tensor([0.2989, 0.587, 0.114])
        found = self._model(grey[None, :, None].expand(-1, -1, 3, -1, -1))
        size = torch.tensor([first.shape[1], first.shape[0]])
        to = found.matches[0, 0]
        matched = (to > -1) & found.mask[0, 0].bool()
        return Matches(
            found.keypoints[0, 0][matched] * size + 0.5,
            found.keypoints[0, 1][to[matched].long()] * size + 0.5,
            found.matching_scores[0, 0][matched],
        )


class DiskLightGlueMatcher:
    """LightGlue with DISK through kornia, from weights that the user has placed on this machine."""

    name = "LightGlue with DISK"
    licence = (
        "Apache-2.0 (DISK and LightGlue weights as distributed with kornia; check the files you installed)"
    )

    def __init__(self, disk: str | Path, lightglue: str | Path, *, max_points: int = 1024) -> None:
        """Args:
        disk: state dictionary of ``kornia.feature.DISK``.
        lightglue: state dictionary of LightGlue for DISK.
        max_points: per frame.

        Raises:
            MissingExtraError: kornia is not installed.
            CheckpointError: weights are missing or do not fit.
        """
        try:
            from kornia.feature import DISK, LightGlue
        except ImportError as error:
            raise MissingExtraError(
                "kornia", "learned-tracks", "the LightGlue matcher with DISK points"
            ) from error
        self._disk = load_state(DISK(), disk, "DISK")
        self._glue = load_state(LightGlue(None, input_dim=128), lightglue, "LightGlue")
        self._max_points = max_points

    @torch.inference_mode()
    def __call__(self, first: Float[Tensor, "H W 3"], second: Float[Tensor, "H W 3"]) -> Matches:
        pictures = torch.stack([first, second]).permute(0, 3, 1, 2)
        found = self._disk(pictures, self._max_points, pad_if_not_divisible=True)
        size = torch.tensor([[first.shape[1], first.shape[0]]])
        if min(len(f.keypoints) for f in found) < 2:
            return Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
        asked = {
            f"image{k}": {
                "keypoints": f.keypoints[None].float(),
                "descriptors": f.descriptors[None],
                "image_size": size,
            }
            for k, f in enumerate(found)
        }
        matched = self._glue(asked)
        pairs = matched["matches"][0]
        return Matches(
            found[0].keypoints[pairs[:, 0]].float() + 0.5,
            found[1].keypoints[pairs[:, 1]].float() + 0.5,
            matched["scores"][0].float(),
        )
