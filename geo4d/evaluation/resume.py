"""Finished sequences of a benchmark, kept and found again, with the hashes of what they read."""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geo4d.datasets.base import Sequence
from geo4d.evaluation.layouts import Layout
from geo4d.evaluation.result import RESULT_FORMAT
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.formats.files import new_file
from geo4d.formats.hashes import sha256_of

log = logging.getLogger(__name__)


MOST_LISTED = 128
"""Files of a sequence whose hashes stand in the result one by one; that of the list covers all."""


def hash_files(sequence: Sequence) -> dict[str, Any]:
    """SHA-256 of every file a sequence reads (at most ``MOST_LISTED`` listed), and of the list of all of them."""
    if not sequence.files:
        return {"count": 0, "sha256": None, "list": []}
    files = sorted(set(sequence.files))
    base = Path(*_common_parts(files))
    entries = []
    for path in files:
        entries.append((path.relative_to(base).as_posix(), sha256_of(path)))
    total = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in entries).encode()).hexdigest()
    listed = [{"file": name, "sha256": digest} for name, digest in entries[:MOST_LISTED]]
    return {"count": len(entries), "sha256": total, "list": listed}


def _common_parts(files: list[Path]) -> tuple[str, ...]:
    first, last = files[0].parent.parts, files[-1].parent.parts
    shared = [a for a, b in zip(first, last, strict=False) if a == b]
    for index, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            shared = list(first[:index])
            break
    return tuple(shared)


def mark_of(plan: Layout, settings: EvaluationSettings) -> str:
    """SHA-256 over what decides a sequence's scores (benchmark, protocol, settings); rows of others are not taken."""
    not_decisive = ("limit", "sequences")
    facts = {
        "format": RESULT_FORMAT,
        "benchmark": plan.benchmark,
        "protocol": asdict(plan.protocol),
        "settings": {name: str(value) for name, value in vars(settings).items() if name not in not_decisive},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _row_path(work: Path, name: str) -> Path:
    return work / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def load_row(work: Path | None, name: str, fingerprint: str) -> dict[str, Any] | None:
    """The kept row of a sequence, or None: none kept, damaged (with a warning), or of another ``fingerprint``."""
    if work is None or not _row_path(work, name).is_file():
        return None
    try:
        kept = json.loads(_row_path(work, name).read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        log.warning("%s in %s is damaged and is computed again", name, work)
        return None
    return kept["row"] if kept.get("fingerprint") == fingerprint and kept.get("name") == name else None


def save_row(work: Path | None, name: str, fingerprint: str, row: dict[str, Any]) -> None:
    """Keep the row of a finished sequence below ``work``; without a folder, nothing."""
    if work is None:
        return
    work.mkdir(parents=True, exist_ok=True)
    with new_file(_row_path(work, name)) as temporary:
        temporary.write_text(
            json.dumps({"name": name, "fingerprint": fingerprint, "row": row}), encoding="utf-8"
        )
