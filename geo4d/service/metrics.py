"""Figures of a service for Prometheus."""

import shutil
from collections import Counter as Count
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from geo4d.service.jobs import Job

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Type of the text that ``render`` gives."""

_SECONDS = (1, 5, 15, 60, 300, 900, 3600)


class Metrics:
    """Counts what happens; each service has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        common: Any = {"registry": self._registry}
        self._jobs = Gauge("geo4d_jobs", "Jobs that are kept, by state", ["state"], **common)
        self._taken = Counter("geo4d_jobs_accepted", "Clips that became jobs", **common)
        self._bytes = Counter("geo4d_upload_bytes", "Bytes of clips that became jobs", **common)
        self._ended = Counter(
            "geo4d_jobs_ended", "Jobs that ended, by state and exit code", ["state", "exit_code"], **common
        )
        self._seconds = Histogram(
            "geo4d_job_seconds", "Seconds of work on jobs that are done", buckets=_SECONDS, **common
        )
        self._frames = Counter("geo4d_frames", "Frames of jobs that are done", **common)
        self._refused = Counter(
            "geo4d_requests_refused", "Requests that were refused, by status", ["status"], **common
        )
        self._workers = Gauge("geo4d_workers", "Processes that hold the model", ["state"], **common)
        self._free = Gauge("geo4d_folder_free_bytes", "Free space on the disk of the jobs", **common)

    def taken(self, num_bytes: int) -> None:
        """A clip became a job."""
        self._taken.inc()
        self._bytes.inc(num_bytes)

    def ended(self, job: Job | None) -> None:
        """A job ended; None if it was deleted meanwhile."""
        if job is None:
            return
        self._ended.labels(job.state, "" if job.exit_code is None else job.exit_code).inc()
        if job.state == "done" and job.summary is not None:
            self._seconds.observe((job.ended_s or 0) - (job.started_s or 0))
            self._frames.inc(job.summary["frames"])

    def refused(self, status: int) -> None:
        """A request was answered with a status of 400 or more."""
        self._refused.labels(status).inc()

    def render(self, jobs: Iterable[Job], workers: Mapping[str, int], folder: Path) -> bytes:
        """The text for Prometheus.

        Args:
            workers: how many there are of each state.
            folder: on whose disk the free space is told.
        """
        states = Count(job.state for job in jobs)
        for state in ("queued", "running", "done", "failed", "cancelled"):
            self._jobs.labels(state).set(states[state])
        for name, count in workers.items():
            self._workers.labels(name).set(count)
        self._free.set(shutil.disk_usage(folder).free)
        return generate_latest(self._registry)
