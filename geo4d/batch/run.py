"""A batch from beginning to end. Start reading here.

``sources -> clips -> [lease -> worker -> result and record] -> table``. Coordinators on other machines may do the same
on the same output at the same time; they meet in the files of ``leases`` and ``ledger`` alone.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geo4d.batch.clips import in_shard, parse_shard
from geo4d.batch.coordinator import Coordinator
from geo4d.batch.engine import Engine
from geo4d.batch.engines import make_engine
from geo4d.batch.jobs import CLIPS_JOB
from geo4d.batch.leases import Leases, Presence
from geo4d.batch.ledger import (
    BATCH,
    CLIPS,
    COORDINATORS,
    LEASES,
    LEDGER,
    LEFT_OUT,
    SUMMARY,
    WORK,
    Ledger,
    check_output,
    claim,
)
from geo4d.batch.records import Records
from geo4d.batch.settings import BatchSettings
from geo4d.batch.sources import Found, find_clips
from geo4d.batch.stores import Fetcher
from geo4d.batch.summary import require_table
from geo4d.batch.tally import Tally
from geo4d.errors import InputError
from geo4d.formats.files import new_file, output_errors
from geo4d.formats.objects import Objects

SOURCES = "sources"
"""In the output: sources that are kept."""

SILENCE = 10
"""Leases' times without a sign of life, after which what a coordinator has fetched is removed by the next one."""


def run_batch(
    sources: Sequence[str],
    output: str | Path,
    *,
    options: BatchSettings | None = None,
    keep_going: bool = False,
    say: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Tally:
    """Reconstruct many clips, each once, whatever dies on the way.

    Args:
        sources: folders, video files, patterns, lists (``.txt``), tars, URLs of objects or prefixes (docs/batch.md).
        output: folder of the batch: results in ``clips``, the table ``summary.md`` and ``summary.parquet``.
        options: how it is run.
        keep_going: a doubtful result is no failure.
        say: gets lines for people.
        settings: keywords of ``geo4d.reconstruct``: ``model``, ``model_options``, fields of ``geo4d.config.RunConfig``.
    Returns:
        counts by exit code; ``Tally.require`` makes an error of failed clips.
    Raises:
        InputError: no clip is found.
        OutputError: the output is something else, or a batch of another version or with other settings; or the disk is
            full (``DiskFull``).
        MissingExtraError: pyarrow, Ray, or the package of a store, is not installed.
        BatchError: the model cannot be loaded; with the exit code that says why. Or the Ray cluster does not answer, has
            other versions, or does not see the files.
        ResourceError: workers die while they start.
        ValueError: nonsensical options.
    """
    options, output = options or BatchSettings(), Path(output).absolute()
    shard = parse_shard(options.shard)
    require_table(options.table)
    if options.publish is not None:
        Objects(options.publish).check()  # a store that does not answer is said before any work
    check_output(output)
    found = find_clips(sources)
    clips = [clip for clip in found.clips.values() if in_shard(clip.name, shard)]
    if not clips:
        raise InputError(
            f"none of {len(found.clips)} clips is in the share {options.shard}; use fewer shares"
        )
    for line in found.lines():
        say(line)
    with make_engine(options, CLIPS_JOB, settings, stall_s=options.clip_timeout_s) as engine:
        # Where nothing is done yet all workers will be needed: they load the model side by side.
        workers = 1 if (output / BATCH).is_dir() else min(options.workers, len(clips))
        mark = claim(output, _first_identity(engine, settings, workers), overwrite=options.overwrite)
        folder = output / BATCH
        with output_errors(output):
            (output / CLIPS).mkdir(exist_ok=True)
        _save_left_out(output, found)
        with (
            Presence(folder / COORDINATORS) as presence,
            Leases(folder / LEASES, presence, options.lease_s) as leases,
        ):
            work = _work_folder(output, options, presence.id)
            _tidy(work.parent, _prefix(output), presence, SILENCE * options.lease_s)
            try:
                if presence.others():  # not all at the same clips
                    start = int(presence.id, 16) % len(clips)
                    clips = clips[start:] + clips[:start]
                records = Records(output, mark, options, Ledger(folder / LEDGER), presence)
                fetcher = Fetcher(work, options.workers, keep=options.keep_sources)
                coordinator = Coordinator(
                    records,
                    leases,
                    engine,
                    fetcher,
                    clips,
                    options,
                    say,
                    keep_going=keep_going,
                    workers=workers,
                )
                coordinator.run()
            finally:
                engine.stop()
                if not options.keep_sources:
                    shutil.rmtree(work, ignore_errors=True)
    if options.publish is not None:
        _publish_tables(output, options.publish)
    for line in coordinator.tally.lines():
        say(f"{line}; see {output / SUMMARY}.md")
    return coordinator.tally


def _publish_tables(output: Path, url: str) -> None:
    """
    Raises:
        OutputError: the store does not answer, or refuses.
    """
    names = [f"{SUMMARY}.md", f"{SUMMARY}.parquet", LEFT_OUT]
    Objects(url).write_all((name, output / name) for name in names if (output / name).is_file())


def _first_identity(engine: Engine, settings: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Start so many workers: what decides the results, as the first that has loaded the model says."""
    for number in range(workers):
        engine.start(number)
    while True:
        for event in engine.wait(60):
            if event.kind == "ready" and event.note is not None:
                return {**event.note, "model_options": settings.get("model_options") or {}}


def _work_folder(output: Path, options: BatchSettings, coordinator: str) -> Path:
    if options.keep_sources:
        return output / SOURCES
    return (options.work or output / BATCH / WORK) / f"{_prefix(output)}{coordinator}"


def _prefix(output: Path) -> str:
    """Begins the names of folders of this batch, in a place that other batches may use, too."""
    return f"geo4d-batch-{hashlib.sha256(os.fsencode(output)).hexdigest()[:12]}-"


def _tidy(folder: Path, prefix: str, presence: Presence, silent_s: float) -> None:
    """Remove what coordinators of this batch fetched that were killed since."""
    for left in folder.glob(f"{prefix}*"):
        if presence.is_gone(left.name.removeprefix(prefix), silent_s):
            shutil.rmtree(left, ignore_errors=True)


def _save_left_out(output: Path, found: Found) -> None:
    """The whole list of what is no clip; the terminal shows its beginning."""
    if found.left_out:
        with new_file(output / LEFT_OUT) as temporary:
            lines = [f"{place}: {why}\n" for place, why in found.left_out]
            temporary.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
