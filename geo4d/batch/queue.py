"""Tasks of one command over the workers of an engine, where nobody else works on them: no leases and no records."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from geo4d.batch.engine import Engine, Event, Named
from geo4d.errors import BatchError, ResourceError
from geo4d.results.layout import differences

log = logging.getLogger(__name__)

TRIES = 3
"""Deaths of workers with the same task after which the command ends."""

POLL_S = 0.5

_Task = TypeVar("_Task", bound=Named)


def first_free(free: set[int], last: int | None) -> int:
    """The first task that nobody has."""
    return min(free)


def work_off(
    engine: Engine,
    tasks: Sequence[_Task],
    workers: int,
    *,
    on_ready: Callable[[Mapping[str, Any]], None],
    hint: str,
    choose: Callable[[set[int], int | None], int] = first_free,
    on_look: Callable[[], None] = lambda: None,
) -> Iterator[tuple[_Task, Mapping[str, Any]]]:
    """Give tasks to workers until all have ended; one whose worker dies is given out again.

    Args:
        engine: entered, without workers.
        tasks: all different.
        workers: at most so many; never more than tasks.
        on_ready: gets the identity of every worker before it has a task; raises where that is not the right one.
        hint: what is left and what to do, for the error when workers die over and over.
        choose: (numbers of tasks that nobody has, number of this worker's last) -> the next one's.
        on_look: called every now and then.
    Yields:
        a task and what was noted about it, in the order in which they end.
    Raises:
        BatchError: the job cannot be loaded; or what ``on_ready`` raises.
        ResourceError: workers die over and over.
    """
    free, deaths, left = set(range(len(tasks))), dict.fromkeys(tasks, 0), len(tasks)
    number_of = {task: number for number, task in enumerate(tasks)}
    last: dict[int, int] = {}

    def died(event: Event) -> None:
        last.pop(event.worker, None)
        task: _Task | None = event.task
        if task is None:
            return
        deaths[task] += 1
        log.warning("a worker with %s ended: %s", task.name, event.reason)
        if deaths[task] >= TRIES:
            raise ResourceError(f"{task.name} ended {TRIES} workers: {event.reason}; {hint}")
        free.add(number_of[task])

    for number in range(min(workers, len(tasks))):
        engine.start(number)
    while left:
        for worker in engine.idle():
            if free:
                chosen = choose(free, last.get(worker))
                free.discard(chosen)
                last[worker] = chosen
                engine.submit(worker, tasks[chosen])
        for event in engine.wait(POLL_S):
            if event.kind == "ready":
                on_ready(event.note or {})
            elif event.kind == "died":
                died(event)
            elif event.task is not None and event.note is not None:
                left -= 1
                yield event.task, event.note
        on_look()


def require_same(expected: Mapping[str, Any], found: Mapping[str, Any], whose: str) -> None:
    """
    Args:
        expected: identity of what results must be like.
        found: that of a worker.
        whose: what the first is of, for the error.
    Raises:
        BatchError: results would differ.
    """
    different = differences(expected, found)
    if different:
        raise BatchError(
            f"a worker would give other results than {whose} ({'; '.join(different)}); give --device, and use the same "
            "versions and weights everywhere"
        )
