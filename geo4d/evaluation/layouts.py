"""Benchmarks laid out: which sequences, from which folder, scored how. A dict of kinds."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from geo4d.datasets.catalogue import find_sequences, load_reader, reader_names
from geo4d.errors import InputError
from geo4d.evaluation.benchmarks import (
    BENCHMARKS,
    CAMERA_COLUMNS,
    DEPTH_COLUMNS,
    POSE_COLUMNS,
    SAMPLES,
    SAMPLES_PROTOCOL,
    SYNTHETIC_PROTOCOL,
)
from geo4d.evaluation.protocols import PROTOCOLS, Protocol
from geo4d.evaluation.settings import EvaluationSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """A benchmark laid out: what can be sent to another process.

    Attributes:
        benchmark: name.
        title: one line.
        protocol: of scoring.
        columns: of the table.
        paths: sequence -> (reader or benchmark that loads it, path as text).
        published: key of published rows.
        sources: sequence -> public source, for benchmarks that are put together by hand.
    """

    benchmark: str
    title: str
    protocol: Protocol
    columns: tuple[str, ...]
    paths: dict[str, tuple[str, str]]
    published: str | None = None
    sources: dict[str, str] = field(default_factory=dict)
    mean_by_pixels: bool = False


def benchmark_names() -> tuple[str, ...]:
    """Everything that ``evaluate`` knows: the papers' benchmarks, our own two, and any reader by name."""
    return tuple(_layouts())


def lay_out(benchmark: str, root: Path | None, settings: EvaluationSettings) -> Layout:
    """The sequences of a benchmark that the settings ask for, under the protocol that they ask for.

    Args:
        benchmark: a name of ``benchmark_names``.
        root: folder of the dataset; not needed for ``synthetic``.
    Raises:
        InputError: the dataset is missing.
        ValueError: unknown benchmark or sequence, or no root where one is needed.
    """
    layouts = _layouts()
    if benchmark not in layouts:
        raise ValueError(f"expected one of {', '.join(layouts)} as the benchmark, got {benchmark!r}")
    if root is None and benchmark != "synthetic":
        raise ValueError(f"expected --root DIR with the dataset of benchmark {benchmark}, got none")
    plan = layouts[benchmark](benchmark, root or Path(), settings)
    paths = plan.paths
    if settings.sequences is not None:
        unknown = [name for name in settings.sequences if name not in paths]
        if unknown:
            raise ValueError(f"expected sequences among {', '.join(paths)}, got {', '.join(unknown)}")
        paths = {name: paths[name] for name in settings.sequences}
    paths = dict(list(paths.items())[: settings.limit])
    protocol = plan.protocol if settings.protocol is None else PROTOCOLS[settings.protocol]
    return replace(plan, paths=paths, protocol=protocol)


def _layouts() -> dict[str, Callable[[str, Path, EvaluationSettings], Layout]]:
    """Benchmark -> what lays it out from (name, root, settings)."""
    return {
        **dict.fromkeys(BENCHMARKS, _lay_out_published),
        "synthetic": _lay_out_synthetic,
        "samples": _lay_out_samples,
        **{name: _lay_out_reader for name in reader_names() if name not in BENCHMARKS},
    }


def _lay_out_synthetic(name: str, root: Path, settings: EvaluationSettings) -> Layout:
    from geo4d.synthetic.heldout import NUM_SEQUENCES, heldout_name

    return Layout(
        name,
        "64 held-out procedural sequences with exact ground truth",
        SYNTHETIC_PROTOCOL,
        (*DEPTH_COLUMNS, *POSE_COLUMNS, *CAMERA_COLUMNS),
        {heldout_name(i): ("synthetic-heldout", str(i)) for i in range(NUM_SEQUENCES)},
    )


def _lay_out_samples(name: str, root: Path, settings: EvaluationSettings) -> Layout:
    present = {sample: reader for sample, (reader, _) in SAMPLES.items() if (root / sample).is_dir()}
    if not present:
        raise InputError(
            f"expected some of the folders {', '.join(SAMPLES)} in {root}, found none; "
            "docs/datasets.md lists where each comes from"
        )
    for sample in SAMPLES.keys() - present.keys():
        log.warning("samples: %s is not in %s and is left out", sample, root)
    return Layout(
        name,
        "small public sequences with ground truth",
        SAMPLES_PROTOCOL,
        (*DEPTH_COLUMNS, *POSE_COLUMNS, *CAMERA_COLUMNS),
        {sample: (reader, str(root / sample)) for sample, reader in present.items()},
        sources={sample: SAMPLES[sample][1] for sample in present},
    )


def _lay_out_published(name: str, root: Path, settings: EvaluationSettings) -> Layout:
    row = BENCHMARKS[name]
    if settings.sequences is not None:
        row = replace(row, sequences=settings.sequences)
    paths = {sequence: ("benchmark:" + name, str(path)) for sequence, path in row.find(root).items()}
    return Layout(
        name,
        row.title,
        row.protocol,
        row.columns,
        paths,
        published=row.published,
        mean_by_pixels=row.mean_by_pixels,
    )


def _lay_out_reader(name: str, root: Path, settings: EvaluationSettings) -> Layout:
    reader = load_reader(name)
    return Layout(
        name,
        f"all of {reader.title}",
        PROTOCOLS["median"],
        (*DEPTH_COLUMNS, *POSE_COLUMNS, *CAMERA_COLUMNS),
        {sequence: (name, str(path)) for sequence, path in find_sequences(reader, root).items()},
    )
