"""The table of a batch: one row per clip that has ended, as Parquet and as Markdown, whole at every moment."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geo4d.batch.ledger import ENDED, SUMMARY
from geo4d.batch.settings import Table
from geo4d.errors import MissingExtraError
from geo4d.formats.files import new_file

COLUMNS: dict[str, str] = {
    "clip": "string",
    "source": "string",
    "state": "string",
    "exit_code": "int32",
    "reason": "string",
    "tries": "int32",
    "seconds": "float64",
    "cpu_seconds": "float64",
    "frames": "int32",
    "verdict": "string",
    "usable_share": "float64",
    "reliable_share": "float64",
    "confidence_median": "float64",
    "source_sha256": "string",
}
"""Name -> type as pyarrow calls it. Values that are not known are missing, never 0."""

IN_MARKDOWN = tuple(name for name in COLUMNS if name not in ("state", "source_sha256"))

MOST_IN_MARKDOWN = 10_000
"""Rows of the Markdown table beside a Parquet file that has them all."""

LEAST_PAUSE_S, SHARE = 2.0, 0.05
"""The table is written at most so often, and takes at most this share of the time."""


def require_table(table: Table) -> None:
    """
    Raises:
        MissingExtraError: Parquet is asked for and pyarrow is not installed.
    """
    if table == "md":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "pyarrow", "batch", "the summary as Parquet (or ask for --table md)"
        ) from error


def make_rows(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the clips that have ended, by name; a column that a record does not have is None."""
    rows = []
    for name in sorted(records):
        record = records[name]
        if record["state"] in ENDED:
            row = {column: record.get(column) for column in COLUMNS}
            rows.append({**row, "clip": name, "tries": len(record.get("tries") or ())})
    return rows


def save_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows; the file appears when it is complete."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    with new_file(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), temporary)


def save_markdown(path: Path, rows: Sequence[Mapping[str, Any]], most: int | None = None) -> None:
    """Write counts and the table, clips that failed first; the file appears when it is complete.

    Args:
        most: rows at most; the rest is in the Parquet file.
    """
    counts = Counter(row["state"] for row in rows)
    said = ", ".join(f"{counts[state]} {state}" for state in ENDED)
    lines = [f"# {len(rows)} clips: {said}", ""]
    ordered = sorted(rows, key=lambda row: (row["exit_code"] == 0, row["clip"]))
    if most is not None and len(rows) > most:
        lines += [f"The first {most}, failed ones first; all are in {SUMMARY}.parquet.", ""]
        ordered = ordered[:most]
    lines += ["| " + " | ".join(IN_MARKDOWN) + " |", "| " + " | ".join(["---"] * len(IN_MARKDOWN)) + " |"]
    lines += ["| " + " | ".join(_cell(row[name]) for name in IN_MARKDOWN) + " |" for row in ordered]
    with new_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())


class Summary:
    """The table in the output, written now and then while clips end.

    Args:
        output: of the batch.
        table: which files.
    """

    def __init__(self, output: Path, table: Table) -> None:
        self.output = output
        self.table = table
        self._next = 0.0

    def update(self, records: Callable[[], Mapping[str, Mapping[str, Any]]], *, now: bool = False) -> None:
        """Write the table if it is time to, or ``now``; the records are asked for only then."""
        started = time.monotonic()
        if not now and started < self._next:
            return
        rows = make_rows(records())
        if self.table == "all":
            save_parquet(self.output / f"{SUMMARY}.parquet", rows)
        save_markdown(self.output / f"{SUMMARY}.md", rows, MOST_IN_MARKDOWN if self.table == "all" else None)
        ended = time.monotonic()
        self._next = ended + max(LEAST_PAUSE_S, (ended - started) / SHARE)
