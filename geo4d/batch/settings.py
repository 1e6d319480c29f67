"""How a batch is run; what its results are is decided by the settings of ``geo4d.run.reconstruct`` alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geo4d.formats.objects import is_url

Table = Literal["all", "md"]
EngineName = Literal["local", "ray"]

MOST_WORKERS, MOST_CPUS, MOST_S = 100_000, 1024, 10_000_000.0
"""More is a slip of the keyboard."""


@dataclass(frozen=True)
class WorkerSettings:
    """The workers of a command.

    Attributes:
        workers: processes, or actors of Ray; each holds the model.
        engine: local (processes on this machine) or ray (actors on a Ray cluster; extra ray).
        ray_address: of a running cluster, such as head:6379 or auto; none takes RAY_ADDRESS, or else starts a Ray on this
            machine for as long as the command runs.
        worker_cpus: numerical threads of a worker; Ray reserves as many CPUs for it. None: the CPUs of this machine are
            divided among local workers, and an actor gets one.
        worker_gpus: GPUs that Ray reserves for an actor; none: one where the cluster has any and the device allows it.
    """

    workers: int = 1
    engine: EngineName = "local"
    ray_address: str | None = None
    worker_cpus: int | None = None
    worker_gpus: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MOST_WORKERS:
            raise ValueError(f"expected 1 to {MOST_WORKERS} workers, got {self.workers}")
        if self.worker_cpus is not None and not 1 <= self.worker_cpus <= MOST_CPUS:
            raise ValueError(f"expected 1 to {MOST_CPUS} CPUs for a worker, got {self.worker_cpus}")
        if self.worker_gpus is not None and not 0 <= self.worker_gpus <= MOST_CPUS:
            raise ValueError(f"expected 0 to {MOST_CPUS} GPUs for a worker, got {self.worker_gpus}")
        if self.engine == "local" and (self.ray_address is not None or self.worker_gpus is not None):
            raise ValueError("expected --engine ray with --ray-address or --worker-gpus")


@dataclass(frozen=True)
class BatchSettings(WorkerSettings):
    """How a batch is run.

    Attributes:
        shard: I/N: take only clips of the I-th of N shares, counted from 1; none takes all that no one else has.
        clip_tries: deaths and failures of a clip after which it is given up and named.
        clip_timeout_s: seconds without any progress after which the worker of a clip is ended, which counts as a try;
            none never does. Opening a long video makes no progress that is seen: leave it minutes.
        lease_s: seconds without a sign of life after which the clips of another coordinator are taken over.
        wait: stay until the clips that other coordinators work on have ended, to take over from one that dies.
        overwrite: go on in an output that was begun with another version, model or settings; results that differ in
            these are made anew.
        retry_failed: try clips again that have failed for good.
        verify: compare the content of sources also where sizes and times of change are as they were.
        keep_sources: keep what was unpacked or downloaded, in OUT/sources; results then keep their colour.
        work: folder on a local disk for what is unpacked or downloaded; none takes one inside OUT.
        publish: address in an object store (s3://, gs://, az://; extra remote) that gets every finished result, as
            clips/NAME, and the tables; OUT keeps leases, records and unfinished clips.
        table: the summary as Parquet and Markdown, or as Markdown alone.
    """

    shard: str | None = None
    clip_tries: int = 3
    clip_timeout_s: float | None = None
    lease_s: float = 60.0
    wait: bool = True
    overwrite: bool = False
    retry_failed: bool = False
    verify: bool = False
    keep_sources: bool = False
    work: Path | None = None
    publish: str | None = None
    table: Table = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_tries < 1:
            raise ValueError(f"expected at least 1 try of a clip, got {self.clip_tries}")
        if self.clip_timeout_s is not None and not 1 <= self.clip_timeout_s <= MOST_S:
            raise ValueError(f"expected a limit of 1 to {MOST_S:g} seconds, got {self.clip_timeout_s}")
        if self.publish is not None and not is_url(self.publish):
            raise ValueError(
                f"expected an address such as s3://bucket/name to publish to, got {self.publish!r}; a folder is -o"
            )
        if not 1 <= self.lease_s <= MOST_S:
            raise ValueError(f"expected a lease of 1 to {MOST_S:g} seconds, got {self.lease_s}")
        if self.keep_sources and self.work is not None:
            raise ValueError("expected --keep-sources or --work, got both: kept sources lie in the output")
