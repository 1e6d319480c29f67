"""Fit the maps from predicted spread to seen error on clips of the generator."""

from collections.abc import Iterable

import torch
from torch import Tensor

from geo4d.evidence.frames import usable_pixels
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.models.tiny.calibration import Calibration, fit_spread_map
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.pipeline import TinyPipelineConfig, TinyPredictor, default_dtype
from geo4d.training.data import ClipSource, TrainingClip
from geo4d.training.scores import spreads_and_errors
from geo4d.training.sources import as_float
from geo4d.types import EvidenceMaps, Window


def clip_window(clip: TrainingClip, index: int = 0) -> tuple[Window, EvidenceMaps]:
    """A clip as the predictor gets it at inference: one window and the evidence about it."""
    clip = as_float(clip)
    num_frames, height, width = clip.depth.shape
    frames = torch.arange(num_frames)
    small = (clip.evidence_disparity.shape[1], clip.evidence_disparity.shape[2])
    depth = 1 / clip.evidence_disparity.clamp(min=1e-6)
    confidence = torch.where(clip.evidence_disparity > 0, clip.evidence_confidence, 0.0)
    evidence = EvidenceMaps(
        points=torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth], -1),
        mask=usable_pixels(confidence) & (confidence > 0),
        confidence=confidence,
        intrinsics=resize_intrinsics(clip.evidence_intrinsics, (height, width), small),
        c2w=clip.evidence_c2w,
        camera_confidence=clip.evidence_trust,
    )
    return Window(clip.rgb.float() / 255, frames, frames / 12.0, index, 12.0), evidence


def fit_calibration(model: TinyModel, source: ClipSource, numbers: Iterable[int]) -> Calibration:
    """The calibration of a model whose own is not used: its raw spreads against errors on the given clips.

    Raises:
        ValueError: no clip shows a surface.
    """
    raw = model.calibration
    model.calibration = Calibration()
    try:
        spreads: dict[str, list[Tensor]] = {"disparity": [], "points": []}
        errors: dict[str, list[Tensor]] = {"disparity": [], "points": []}
        for number in numbers:
            clip = source(number)
            window, evidence = clip_window(clip)
            config = TinyPipelineConfig(num_pixels=window.size[0] * window.size[1])
            predictor = TinyPredictor(model, "", config, dtype=default_dtype("cpu"))
            answer = predictor.predict(window, seed=number, evidence=evidence)
            for name, (spread, error) in spreads_and_errors(answer, clip.depth.float()).items():
                spreads[name].append(spread)
                errors[name].append(error)
    finally:
        model.calibration = raw
    if not spreads["points"]:
        raise ValueError("expected clips that show surfaces, got none")
    return Calibration(
        **{name: fit_spread_map(torch.cat(spreads[name]), torch.cat(errors[name])) for name in spreads}
    )
