"""The papers' ablations for any Geo4D-family model: a variant is settings of the run, or a predictor with a part less."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.datasets.base import Sequence
from geo4d.evaluation.predicted import Predicted, from_reconstruction
from geo4d.evaluation.protocols import Protocol
from geo4d.evaluation.score import SequenceScore, score
from geo4d.models.base import Predictor, PredictorInfo, load_predictor
from geo4d.types import Prediction, Reconstruction, Window

STEPS = (1, 5, 10, 25)
STRIDES = (15, 8, 4, 2)
MODALITIES = {
    "points": "only-point_map",
    "disparity": "windows-disparity",
    "rays": "windows-rays",
    "all": None,
}
"""Row -> part. The fusion needs points; disparity and rays alone are scored window by window, unfused."""
WINDOW_PARTS = {
    "windows-disparity": (
        "abs_rel",
        "sq_rel",
        "rmse",
        "silog",
        "log10",
        "irmse",
        "delta",
        "coverage",
        "depth_",
        "num_",
    ),
    "windows-rays": ("ate", "rpe", "rot", "auc", "pose"),
}
"""Part -> beginnings of the metrics that it answers."""
VAES = {"image decoder for points": "plain-point-decoder", "fine-tuned point decoder": None}

_FIELDS = {
    "point_map": ("point_map", "point_uncertainty"),
    "disparity": ("disparity", "disparity_uncertainty"),
    "ray_map": ("ray_map", "ray_c2w"),
}


def variants(kind: str, settings: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str | None]]:
    """Row of the ablation table -> (settings of the run, part to take away).

    Raises:
        ValueError: unknown kind.
    """
    if kind == "steps":
        return {f"{n} step{'s' if n > 1 else ''}": ({**settings, "num_steps": n}, None) for n in STEPS}
    if kind == "stride":
        return {f"stride {n}": ({**settings, "window_stride": n}, None) for n in STRIDES}
    if kind == "modalities":
        return {name: (settings, part) for name, part in MODALITIES.items()}
    if kind == "vae":
        return {name: (settings, part) for name, part in VAES.items()}
    raise ValueError(f"expected steps, modalities, stride or vae as the ablation, got {kind!r}")


class WithoutModalities:
    """A predictor whose predictions keep some of the modalities: names joined by ``+``."""

    def __init__(self, predictor: Predictor, kept: str) -> None:
        names = kept.split("+")
        if not set(names) <= set(_FIELDS):
            raise ValueError(f"expected some of {', '.join(_FIELDS)} to keep, joined by +, got {kept!r}")
        self._predictor, self._kept = predictor, names
        self.info: PredictorInfo = replace(
            predictor.info, config={**(predictor.info.config or {}), "ablation": f"only {kept}"}
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which the model runs, unchanged."""
        return self._predictor.size_for(source_size)

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Peak memory of one window, that of the whole model."""
        return self._predictor.memory_bytes(source_size)

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """What the model makes of all windows beforehand, unchanged."""
        return self._predictor.prepare(windows)

    def predict(self, *arguments: Any, **keywords: Any) -> Prediction:
        """The model's prediction without the modalities that are left out.

        Raises:
            ValueError: the model does not predict a modality that is to be kept.
        """
        prediction = self._predictor.predict(*arguments, **keywords)
        absent = [name for name in self._kept if getattr(prediction, name) is None]
        if absent:
            raise ValueError(f"expected a model that predicts {', '.join(absent)}, {self.info.name} does not")
        changes: dict[str, Any] = {
            field: None for name, fields in _FIELDS.items() if name not in self._kept for field in fields
        }
        return replace(prediction, **changes)


class PlainPointDecoder:
    """The image decoder in the place of Geo4D's fine-tuned point decoder, with one spread for all pixels."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def decode_with_uncertainty(self, z: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C2 H W"]:
        """The picture decoder's output with a raw uncertainty of 0 as the last channel."""
        picture = self._vae.decode(z)
        return torch.cat([picture, torch.zeros_like(picture[:, :1])], dim=1)


def ablated_predictor(model: str, part: str, options: dict[str, Any], settings: dict[str, Any]) -> Predictor:
    """A predictor without ``part``: ``only-<modality>`` or ``plain-point-decoder``.

    Raises:
        ValueError: the model has no such part.
    """
    known = ("num_steps", "window_stride")
    chosen = {name: settings[name] for name in known if settings.get(name) is not None}
    predictor: Any = load_predictor(
        model,
        weights=settings.get("weights"),
        device=settings.get("device"),
        dtype=settings.get("dtype"),
        **options,
        **chosen,
    )
    if part.startswith("only-"):
        return WithoutModalities(predictor, part.removeprefix("only-"))
    if part == "plain-point-decoder":
        if not hasattr(predictor, "point_vae") or not hasattr(predictor, "vae"):
            raise ValueError(
                f"expected a model with an image decoder and a point decoder (geo4d) for the vae ablation, got {model}"
            )
        predictor.point_vae = PlainPointDecoder(predictor.vae)
        result: Predictor = predictor
        return result
    raise ValueError(f"expected only-<modality> or plain-point-decoder, got {part!r}")


def score_windows(
    sequence: Sequence,
    frames: np.ndarray,
    model: Any,
    settings: dict[str, Any],
    options: dict[str, Any],
    protocol: Protocol,
) -> tuple[Predicted, list[SequenceScore]]:
    """Every window of the network scored on its own, as the network left it, before any fusion."""
    from geo4d.datasets.views import select
    from geo4d.run.reconstruct import reconstruct
    from geo4d.run.spool import Spool

    with tempfile.TemporaryDirectory(prefix="geo4d-windows-") as folder:
        output = Path(folder) / "result"
        run = {**settings, "keep_windows": True, "precision": "float32"}
        reconstruction: Reconstruction = reconstruct(frames, output, model=model, **options, **run)
        spool = Spool(output / "windows", "float32")
        scores = []
        index = 0
        while (prediction := spool.read(index)) is not None:
            part = select(sequence, prediction.frame_indices.numpy())
            scores.append(score(from_prediction(prediction), part, protocol))
            index += 1
        whole = from_reconstruction(reconstruction)
    return replace(whole, maps=None), scores


def from_prediction(prediction: Prediction) -> Predicted:
    """What the network says about one window: its disparity (else z of its points) and its cameras."""
    count = prediction.num_frames
    valid = prediction.valid
    maps, quantity, kind = None, "depth", prediction.point_scale_kind
    if prediction.disparity is not None:
        maps, quantity, kind = prediction.disparity.float(), "disparity", prediction.disparity_scale_kind
    elif prediction.point_map is not None and prediction.point_frame == "camera":
        maps = prediction.point_map[..., 2].float()
        maps = maps if valid is None else torch.where(valid, maps, torch.nan)
    c2w = prediction.c2w if prediction.c2w is not None else prediction.ray_c2w
    return Predicted(
        frames=np.arange(count),
        size=prediction.size,
        maps=None if maps is None else maps.numpy(),
        quantity=quantity,  # type: ignore[arg-type]
        scale_kind=kind,
        intrinsics=None if prediction.intrinsics is None else prediction.intrinsics.double().numpy(),
        c2w=None if c2w is None else c2w.double().numpy(),
        provenance=prediction.provenance,
    )
