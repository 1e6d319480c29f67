"""What a batch keeps beside its results: what it was begun with, and a record for each clip that was tried."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import OutputError
from geo4d.formats.files import output_errors, write_json
from geo4d.results.layout import differences, plain
from geo4d.results.manifest import read_json

CLIPS, BATCH, SUMMARY, LEFT_OUT = "clips", "batch", "summary", "left_out.txt"
"""Names in the output of a batch: results, its own folder, the table, and what was no clip."""

FORMAT = "geo4d-batch"

IDENTITY, LEDGER, LEASES, COORDINATORS, WORK = "identity.json", "ledger", "leases", "coordinators", "work"
"""Names in the batch's own folder."""

_BEGINNING = ".batch-"
"""Begins the name of a batch's folder that another coordinator is just making."""

ENDED = ("done", "failed", "quarantined")
"""States of a record that no coordinator goes on from; ``pending`` clips have failed tries behind them."""


def claim(output: Path, identity: Mapping[str, Any], *, overwrite: bool) -> str:
    """Begin a batch in ``output``, or join the one that is there.

    Args:
        identity: versions, model and its weights, device, settings: what decides results.
        overwrite: let a batch with another identity go on with this one.
    Returns:
        hash of the identity; records carry it.
    Raises:
        OutputError: something else is there, or a batch with another identity.
    """
    whole = json.loads(json.dumps({"format": FORMAT, **plain(identity)}))
    folder = output / BATCH
    check_output(output)
    if not (folder / IDENTITY).is_file():
        _begin(folder, whole)
    found = read_identity(output)
    different = differences(found, whole)
    if different and not overwrite:
        raise OutputError(
            f"the batch in {output} was begun otherwise ({'; '.join(different)}); repeat that, choose another output, "
            "or let --overwrite make the clips anew whose results differ in it"
        )
    if different:
        with output_errors(folder):
            write_json(folder / IDENTITY, whole)
    return identity_hash(whole)


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Hex SHA-256 of an identity in one canonical form."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def check_output(output: Path) -> None:
    """
    Raises:
        OutputError: what lies there is no output of a batch.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; choose a folder for the batch")
    if not output.is_dir() or (output / BATCH / IDENTITY).is_file():
        return
    if any(not path.name.startswith(_BEGINNING) for path in output.iterdir()):
        raise OutputError(
            f"{output} holds files and is no output of a batch; it is left alone, choose another output"
        )


def read_identity(output: Path) -> dict[str, Any]:
    """What the batch in ``output`` was begun with.

    Raises:
        OutputError: there is none, or it is damaged.
    """
    path = output / BATCH / IDENTITY
    identity = read_json(path)
    if not isinstance(identity, dict) or identity.get("format") != FORMAT:
        raise OutputError(f"{path} is damaged: it is not as geo4d batch writes it")
    return identity


def _begin(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the batch's folder with all in it, in one rename; nothing happens where another coordinator was first."""
    with output_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_BEGINNING))
        try:
            for name in (LEDGER, LEASES, COORDINATORS):
                (temporary / name).mkdir()
            write_json(temporary / IDENTITY, identity)
            temporary.chmod(0o755)
            temporary.rename(folder)
        except OSError:
            if not (folder / IDENTITY).is_file():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class Ledger:
    """The records of all clips of a batch, one file each, written by whoever holds the clip's lease.

    Args:
        folder: of the records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a clip as it is now; None where it was never tried.

        Raises:
            OutputError: the record is damaged.
        """
        path = self.folder / f"{name}.json"
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._seen.get(name) != seen:
            record = read_json(path)
            if not isinstance(record, dict) or not isinstance(record.get("state"), str):
                raise OutputError(f"{path} is damaged; remove it, and the clip is done again")
            self.records[name], self._seen[name] = record, seen
        return self.records[name]

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """
        Raises:
            OutputError: not writable, or the disk is full.
        """
        with output_errors(self.folder):
            write_json(self.folder / f"{name}.json", plain(record))
        self.read(name)

    def scan(self) -> dict[str, dict[str, Any]]:
        """All records, those of other coordinators too; only what has changed is read."""
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                self.read(entry.name.removesuffix(".json"))
        return self.records
