"""The engines by name."""

from collections.abc import Mapping
from typing import Any

from geo4d.batch.engine import Engine, Job
from geo4d.batch.local import LocalEngine
from geo4d.batch.settings import WorkerSettings


def make_engine(
    how: WorkerSettings, job: Job, settings: Mapping[str, Any], *, stall_s: float | None = None
) -> Engine:
    """The engine that was asked for; nothing is started before it is entered.

    Args:
        job: what workers do.
        settings: keywords for ``job.load``.
        stall_s: seconds without progress after which a worker with a task is ended; None lets it be.
    """
    if how.engine == "local":
        return LocalEngine(how.workers, job, settings, threads=how.worker_cpus, stall_s=stall_s)
    from geo4d.batch.ray_engine import RayEngine

    return RayEngine(how, job, settings, stall_s=stall_s)
