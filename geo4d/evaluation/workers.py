"""Sequences of a benchmark, in this process or over the workers of ``geo4d.batch``, with a model that is held."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from geo4d.batch.engine import Job
from geo4d.batch.engines import make_engine
from geo4d.batch.queue import require_same, work_off
from geo4d.batch.settings import WorkerSettings
from geo4d.errors import BatchError, explain
from geo4d.evaluation.layouts import Layout
from geo4d.evaluation.predict import hold_model, run_sequence
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.models.base import Predictor
from geo4d.results.layout import plain
from geo4d.run.inputs import describe_model

ALONE = WorkerSettings()
"""One sequence after the other in this process."""


@dataclass(frozen=True)
class SequenceTask:
    """A sequence of a benchmark, by its name."""

    name: str


@dataclass(frozen=True)
class Held:
    """What a worker holds.

    Attributes:
        predictor: the model; None for predictions, and where an ablation loads its own.
    """

    plan: Layout
    settings: EvaluationSettings
    predictor: Predictor | None
    identity: dict[str, Any]


def hold(settings: Mapping[str, Any]) -> Held:
    """Load the model.

    Args:
        settings: ``plan`` and ``evaluation``.
    """
    evaluation: EvaluationSettings = settings["evaluation"]
    predictor = hold_model(evaluation)
    identity = {"model": None if predictor is None else plain(describe_model(predictor))}
    return Held(settings["plan"], evaluation, predictor, identity)


def run_task(held: Held, task: SequenceTask, on_progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """The ``row`` of a sequence, or the ``exit_code`` and ``reason`` of what went wrong."""
    on_progress("evaluate", 0, 1)
    try:
        row = run_sequence(held.plan, held.settings, task.name, held.predictor)
    except Exception as error:
        code, reason = explain(error)
        return {"exit_code": code, "reason": reason}
    return {"row": row}


SEQUENCES_JOB = Job(hold, run_task)
"""What the workers of an evaluation do."""


def run_sequences(
    plan: Layout, settings: EvaluationSettings, names: list[str], how: WorkerSettings = ALONE
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, row) of every sequence, in the order in which they end.

    Raises:
        BatchError: a sequence failed in a worker, with its exit code.
        ResourceError: workers die over and over.
    """
    if not names:
        return
    if how == ALONE:
        predictor = hold_model(settings)
        for name in names:
            yield name, run_sequence(plan, settings, name, predictor)
        return
    if settings.predictions is not None:  # workers on other nodes stand in other folders
        settings = replace(settings, predictions=settings.predictions.absolute())
    tasks = [SequenceTask(name) for name in names]
    loading = {
        "plan": plan,
        "evaluation": settings,
        "device": "cpu" if settings.model is None else settings.model_settings.get("device"),
    }
    first: dict[str, Any] = {}

    def compare(found: Mapping[str, Any]) -> None:
        if not first:
            first.update(found)
        require_same(first, found, "the first one")

    with make_engine(how, SEQUENCES_JOB, loading) as engine:
        for task, note in work_off(
            engine,
            tasks,
            how.workers,
            on_ready=compare,
            hint="finished sequences stay beside --json: use fewer workers, or one to see the fault",
        ):
            if "row" not in note:
                raise BatchError(f"{task.name}: {note['reason']}", note["exit_code"])
            yield task.name, note["row"]
