"""``geo4d evaluate``: score a model, or anyone's predictions, on a benchmark."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from geo4d.batch.settings import WorkerSettings

EXAMPLES = (
    "geo4d evaluate synthetic",
    "geo4d evaluate sintel --root data/sintel --model tiny --json scores.json --workers 2",
)


@dataclass(frozen=True)
class EvaluateOptions:
    """Score a model or predictions on a benchmark, under a stated protocol.

    Benchmarks: synthetic (bundled, no data needed), samples, those of the Geo4D and GeometryCrafter papers, or any
    dataset layout by name; 'geo4d evaluate list' prints them. docs/protocols.md has the metrics, the prediction layout
    and the result file.
    """

    benchmark: Annotated[str, tyro.conf.Positional]
    """Name of the benchmark, or 'list'."""
    root: Path | None = None
    """Folder of the dataset."""
    model: str | None = None
    """Predictor to run: tiny (the default), geo4d, geometrycrafter, geometrycrafter-determ, moge."""
    model_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE for the model's own pipeline, such as height=512; wins over what the benchmark sets; may be repeated."""
    predictions: Path | None = None
    """Folder of predictions to score in its place: one folder per sequence."""
    json: Path | None = None
    """File for the result; an interrupted run goes on from the folder FILE.parts beside it."""
    table: Literal["text", "markdown", "latex", "html"] = "text"
    """Format of the printed table."""
    published: bool = True
    """Print the papers' rows beside ours."""
    plots: Path | None = None
    """Folder for error maps and camera paths (the prediction is computed once more for them)."""
    ablate: Literal["steps", "modalities", "stride", "vae"] | None = None
    """Run the paper's ablation of the model in place of one run."""
    baselines: bool = True
    """Score what must be beaten beside the model (synthetic and samples): constant, ramp, control, pictures, evidence."""
    network_only: bool = False
    """Score each window of the network on its own, without fusion."""
    protocol: str | None = None
    """Score under another protocol than the benchmark's."""
    sequences: tuple[str, ...] | None = None
    """Only these sequences."""
    limit: int | None = None
    """Only the first so many sequences."""
    seed: int = 0
    """Seed of the model's noise."""
    num_steps: int | None = None
    """Sampling steps of a diffusion model."""
    window_stride: int | None = None
    """Frames between window starts."""
    fusion: Literal["corrected", "published"] | None = None
    """How windows are aligned: corrected (the default), or published, the objective of the paper's code."""
    weights: Path | None = None
    """Weights of the model."""
    device: str | None = None
    """Torch device."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Compute type of the network."""
    quiet: bool = False
    """Print the table only."""
    how: tyro.conf.OmitArgPrefixes[WorkerSettings] = field(default_factory=WorkerSettings)


def run(options: EvaluateOptions) -> int:
    """Evaluate, print the table, write the file."""
    import json

    from geo4d.evaluation.layouts import benchmark_names
    from geo4d.evaluation.run import evaluate
    from geo4d.evaluation.settings import EvaluationSettings
    from geo4d.evaluation.tables import ablation_table, baseline_table, confidence_table, result_table
    from geo4d.formats.files import new_file
    from geo4d.run.progress import StageBars

    if options.benchmark == "list":
        print("\n".join(_described(benchmark_names())))
        return 0
    model, chosen, model_options = _choose_model(options)

    def evaluate_with(model_settings: dict[str, Any], part: str | None, parts: str) -> dict[str, Any]:
        settings = EvaluationSettings(
            model=model,
            predictions=options.predictions,
            model_settings=model_settings,
            model_options=model_options if model is not None else {},
            ablate=part,
            network_only=options.network_only,
            protocol=options.protocol,
            sequences=options.sequences,
            limit=options.limit,
            baselines=options.baselines and part is None and options.ablate is None,
        )
        work = None if options.json is None else options.json.with_name(f"{options.json.name}.{parts}")
        with StageBars(quiet=options.quiet) as bars:
            return evaluate(
                options.benchmark, options.root, settings, how=options.how, work=work, on_progress=bars
            )

    model_settings = {"seed": options.seed, **chosen} if model is not None else {}
    if options.ablate is None:
        result = evaluate_with(model_settings, None, "parts")
        tables = [
            result_table(result, published=options.published),
            baseline_table(result),
            confidence_table(result),
        ]
    else:
        from geo4d.evaluation.ablations import variants

        if model is None:
            raise ValueError("expected --model for an ablation, got predictions")
        results = {
            name: evaluate_with(changed, part, f"parts_{index}")
            for index, (name, (changed, part)) in enumerate(variants(options.ablate, model_settings).items())
        }
        result = {
            "benchmark": options.benchmark,
            "ablation": options.ablate,
            "model": model,
            "variants": results,
        }
        tables = [ablation_table(options.ablate, results, published=options.published)]
    print("\n\n".join(table.render(options.table) for table in tables if table is not None))
    if options.json is not None:
        with new_file(options.json) as temporary:
            temporary.write_text(json.dumps(result, indent=1, default=str), encoding="utf-8")
        _remove_parts(options.json)
        print(f"wrote {options.json}")
    if options.plots is not None:
        if options.ablate is not None:
            raise ValueError("expected --plots without --ablate")
        count = _save_plots(options, model, model_settings, model_options)
        print(f"wrote {count} pictures to {options.plots}")
    return 0


def _choose_model(options: EvaluateOptions) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """(model, settings of ``reconstruct``, options of its pipeline) that the flags ask for.

    Raises:
        ValueError: options of a model beside predictions.
    """
    from geo4d.apps.commands.reconstruct import parse_options

    model = "tiny" if options.model is None and options.predictions is None else options.model
    chosen: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("num_steps", "window_stride", "fusion", "weights", "device", "dtype")
        if getattr(options, name) is not None
    }

    model_options = parse_options(options.model_option)
    if model is None and (model_options or chosen):
        given = [
            *(f"--{name.replace('_', '-')}" for name in chosen),
            *(["--model-option"] if model_options else []),
        ]
        raise ValueError(
            f"expected --model with {', '.join(given)}, got predictions, which no option changes"
        )
    return model, chosen, model_options


def _described(names: tuple[str, ...]) -> list[str]:
    from geo4d.datasets.catalogue import load_reader
    from geo4d.evaluation.benchmarks import BENCHMARKS

    own = {
        "synthetic": "64 held-out procedural sequences",
        "samples": "small public sequences with ground truth",
    }
    lines = []
    for name in names:
        title = BENCHMARKS[name].title if name in BENCHMARKS else own.get(name)
        lines.append(f"{name:<16} {title or 'any folder in the layout of ' + load_reader(name).title}")
    return lines


def _remove_parts(path: Path) -> None:
    import shutil

    for folder in path.parent.glob(f"{path.name}.parts*"):
        shutil.rmtree(folder)


def _save_plots(
    options: EvaluateOptions, model: str | None, model_settings: dict[str, Any], model_options: dict[str, Any]
) -> int:
    from geo4d.evaluation.run import predictions_for_plots
    from geo4d.evaluation.settings import EvaluationSettings

    assert options.plots is not None
    settings = EvaluationSettings(
        model=model,
        predictions=options.predictions,
        model_settings=model_settings,
        model_options=model_options if model is not None else {},
        protocol=options.protocol,
        sequences=options.sequences,
        limit=options.limit,
    )
    return predictions_for_plots(options.benchmark, options.root, settings, options.plots)
