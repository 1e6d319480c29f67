"""``geo4d batch``: many videos in, a result for each, and a table."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from geo4d.apps.commands.reconstruct import PLACE, RunOptions
from geo4d.batch.settings import BatchSettings

EXAMPLES = (
    "geo4d batch clips/ -o out --workers 4",
    "geo4d batch 'day*/**/*.mp4' list.txt shard-{0001..0100}.tar -o out --stride 2 --model-option doubt=false",
    "geo4d batch s3://bucket/videos -o out --work /scratch --shard $SLURM_ARRAY_TASK_ID/10",
)


@dataclass(frozen=True)
class BatchOptions(RunOptions):
    """Reconstruct many videos: folders, patterns, lists, WebDataset tars, buckets; over processes and machines.

    A second call goes on with what is left; several at once on one output share the clips. See docs/batch.md.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders, video files, quoted patterns, lists (.txt, one place a line), tars, s3://, gs:// or az:// prefixes."""
    output: Annotated[Path | str, PLACE, tyro.conf.arg(aliases=["-o"])]
    """Folder of the batch: OUT/clips/NAME for each clip, OUT/summary.md and OUT/summary.parquet."""
    quiet: bool = False
    """Print errors only."""
    how: tyro.conf.OmitArgPrefixes[BatchSettings] = field(default_factory=BatchSettings)


def run(options: BatchOptions) -> int:
    """Run the batch; 0 if no clip failed. Raises also what ``run_batch`` does.

    Raises:
        ValueError: no source, or nonsensical options.
        BatchError: clips failed, with their exit code if all failed alike; or the model cannot be loaded.
    """
    from geo4d.batch.ledger import SUMMARY
    from geo4d.batch.run import run_batch

    if not options.sources:
        raise ValueError("expected at least one source: a folder, file, pattern, list, tar or URL")
    if not isinstance(options.output, Path):
        raise ValueError(
            f"expected a folder as the output, for leases and unfinished clips, got {options.output}; use "
            f"-o FOLDER --publish {options.output}"
        )

    def say(line: str) -> None:
        if not options.quiet:
            print(line, flush=True)

    tally = run_batch(
        options.sources,
        options.output,
        options=options.how,
        say=say,
        keep_going=options.keep_going,
        **options.keywords(),
    )
    tally.require(keep_going=options.keep_going, where=f"{options.output / SUMMARY}.md")
    return 0
