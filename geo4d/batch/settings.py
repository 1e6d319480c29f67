"""How a batch is run; what its results are is decided by the settings of ``geo4d.run.reconstruct`` alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Table = Literal["all", "md"]


@dataclass(frozen=True)
class BatchSettings:
    """How a batch is run.

    Attributes:
        workers: processes on this machine; each holds the model.
        shard: I/N: take only clips of the I-th of N shares, counted from 1; none takes all that no one else has.
        clip_tries: deaths and failures of a clip after which it is given up and named.
        lease_s: seconds without a sign of life after which the clips of another coordinator are taken over.
        wait: stay until the clips that other coordinators work on have ended, to take over from one that dies.
        overwrite: go on in an output that was begun with another version, model or settings; results that differ in
            these are made anew.
        retry_failed: try clips again that have failed for good.
        verify: compare the content of sources also where sizes and times of change are as they were.
        keep_sources: keep what was unpacked or downloaded, in OUT/sources; results then keep their colour.
        work: folder on a local disk for what is unpacked or downloaded; none takes one inside OUT.
        table: the summary as Parquet and Markdown, or as Markdown alone.
    """

    workers: int = 1
    shard: str | None = None
    clip_tries: int = 3
    lease_s: float = 60.0
    wait: bool = True
    overwrite: bool = False
    retry_failed: bool = False
    verify: bool = False
    keep_sources: bool = False
    work: Path | None = None
    table: Table = "all"

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"expected at least 1 worker, got {self.workers}")
        if self.clip_tries < 1:
            raise ValueError(f"expected at least 1 try of a clip, got {self.clip_tries}")
        if self.lease_s < 1:
            raise ValueError(f"expected a lease of at least 1 second, got {self.lease_s}")
        if self.keep_sources and self.work is not None:
            raise ValueError("expected --keep-sources or --work, got both: kept sources lie in the output")
