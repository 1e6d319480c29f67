"""A run whose result goes to an object store: made on a disk, then published, and gone on with after either failed."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geo4d.config import RunConfig
from geo4d.errors import OutputError
from geo4d.formats.files import output_errors, write_json
from geo4d.models.base import Predictor
from geo4d.results.layout import plain
from geo4d.results.manifest import is_result, read_json
from geo4d.results.remote import check_remote_output, load_remote, remove_local, upload_result
from geo4d.results.remote_lock import OWNER, StoreLock, owner_of
from geo4d.types import Reconstruction

ASKED = "asked.json"
"""Beside a result that waits: what was asked for."""


def local_place(url: str) -> Path:
    """Where the result for an address is made: in the system's temporary folder (TMPDIR), always the same."""
    name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"geo4d-for-store-{name}" / "result"


def what_is_asked(
    video: object, model: str | Predictor, model_options: Mapping[str, Any] | None, config: RunConfig
) -> dict[str, Any]:
    """What decides a result, as JSON values; the content of the source is looked at when a run begins."""
    return {
        "video": str(Path(video).resolve()) if isinstance(video, str | Path) else None,
        "model": model if isinstance(model, str) else model.info.name,
        "model_options": plain(model_options or {}),
        "config": plain(config),
    }


def reconstruct_to_store(
    url: str, make: Callable[..., object], asked: Mapping[str, Any], *, overwrite: bool, resume: bool
) -> Reconstruction:
    """Make a result on a disk, publish it with its manifest last, and remove it from the disk.

    Args:
        make: (folder of the result, ``overwrite``) runs the reconstruction.
        asked: what decides the result; one that waits is published only if the same was asked for.
        overwrite: replace what is published there, and forget a result that waits.
        resume: go on with an unfinished run, or publish a finished result that could not be.
    Raises:
        OutputInUse: another run is writing there.
        OutputError: the place is not free, the store does not answer (the finished result then waits on the disk), or
            what waits there was made with other settings.
    """
    place = local_place(url)
    with output_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with StoreLock(url, owner=owner_of(place.parent)) as lock:
        check_remote_output(url, overwrite=overwrite)
        if not (resume and is_result(place)):
            write_json(place.parent / ASKED, dict(asked))
            make(place, overwrite=is_result(place) or overwrite)
        elif read_json(place.parent / ASKED) != asked:
            raise OutputError(
                f"{place} waits to be published to {url} and was made from another source, with another model or other "
                "settings; repeat them, or start again with --overwrite alone"
            )
        try:
            lock.require()
            upload_result(place, url)
        except OutputError as error:
            raise type(error)(
                f"{error}; the finished result waits in {place}, --resume publishes it"
            ) from error
        remove_local(place)
        for name in (ASKED, OWNER):
            (place.parent / name).unlink(missing_ok=True)
    return load_remote(url)
