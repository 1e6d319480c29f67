"""What is evaluated, and how it is scored."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geo4d.evaluation.benchmarks import BENCHMARKS
from geo4d.evaluation.protocols import PROTOCOLS


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and how it is scored.

    Attributes:
        model: name of the predictor, or None for predictions from a folder.
        predictions: folder with one folder per sequence, or None for a model.
        model_settings: fields of ``RunConfig`` for ``reconstruct``, JSON values.
        model_options: options of the model's own pipeline, JSON values.
        ablate: part of the model that is taken away; see ``geo4d.evaluation.ablations``.
        network_only: score every window of the network on its own, without fusion.
        protocol: name of a protocol that replaces the benchmark's own, or None.
        sequences: only these, or None.
        limit: only the first so many sequences, or None.
        baselines: score what must be beaten beside the model, on ``synthetic`` and ``samples``; two more runs each.
    """

    model: str | None = "tiny"
    predictions: Path | None = None
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    ablate: str | None = None
    network_only: bool = False
    protocol: str | None = None
    sequences: tuple[str, ...] | None = None
    limit: int | None = None
    baselines: bool = True

    def __post_init__(self) -> None:
        if (self.model is None) == (self.predictions is None):
            raise ValueError("expected either a model or a folder of predictions, got both or neither")
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ValueError(f"expected one of {', '.join(PROTOCOLS)} as the protocol, got {self.protocol!r}")


def with_benchmark_options(benchmark: str, settings: EvaluationSettings) -> EvaluationSettings:
    """The settings with the options that the benchmark's paper sets for this model; those of the user win."""
    if settings.model is None or benchmark not in BENCHMARKS:
        return settings
    options = BENCHMARKS[benchmark].options_for(settings.model)
    return replace(settings, model_options={**options, **settings.model_options})
