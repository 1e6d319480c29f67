"""Bytes of members of tars and of objects in stores, onto a disk while a clip is worked on."""

import logging
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from geo4d.batch.clips import Clip
from geo4d.errors import Geo4DError, InputError
from geo4d.formats.files import output_errors
from geo4d.formats.objects import is_url, open_store

log = logging.getLogger(__name__)

READS = 3
"""How often an object is read before its clip counts as failed; a second, then two, lie between."""

_BLOCK = 2**20


@dataclass(frozen=True)
class Member:
    """A member of a tar: its name, where its bytes lie, and whether it is a plain file."""

    name: str
    offset: int
    size: int
    plain: bool


def find_objects(url: str) -> list[tuple[str, dict[str, Any]]]:
    """(URL, what the store says about it) of the object or of all objects below a prefix, sorted.

    Raises:
        InputError: an unknown kind of store, nothing there, or the store does not answer.
        MissingExtraError: the package for the store is not installed.
    """
    store, path = open_store(url)
    try:
        found = store.find(path, detail=True)
    except Exception as error:  # every store has errors of its own
        raise InputError(f"cannot list {url}: {error}; check the address and the access") from error
    if not found:
        raise InputError(f"expected an object or a prefix at {url}, found nothing; check the address")
    kind = url.split("://")[0]
    return [(f"{kind}://{name.lstrip('/')}", info) for name, info in sorted(found.items())]


def store_info(info: dict[str, Any]) -> tuple[int, tuple[str | int, ...]]:
    """Bytes of an object, and what changes when it changes: size, tag or time."""
    size = int(info.get("size") or 0)
    marks = [info.get(name) for name in ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "created")]
    return size, (size, next((str(mark) for mark in marks if mark), ""))


def iter_members(location: str) -> Iterator[Member]:
    """Members of a plain tar that are no folders.

    Raises:
        InputError: it cannot be read, or ends before its members do.
    """
    try:
        with _open(location) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if not member.isdir():
                    plain = member.isreg() and not member.issparse()
                    yield Member(member.name, member.offset_data, member.size, plain)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(
            f"expected a whole, plain tar at {location}, got: {error}; pack it again or leave it out"
        ) from error


@contextmanager
def _open(location: str) -> Iterator[IO[bytes]]:
    """A seekable file, on a disk or in a store."""
    if is_url(location):
        store, path = open_store(location)
        with store.open(path, "rb") as file:
            yield file
    else:
        with open(location, "rb") as file:
            yield file


def needs_fetching(clip: Clip) -> bool:
    """Whether the bytes of a clip must be brought to a disk before it can be opened."""
    return clip.kind != "path"


class Fetcher:
    """Brings clips to a disk in threads of its own, while workers are busy with others.

    Args:
        work: folder with one for each clip.
        threads: clips at a time.
        keep: leave what was fetched when a clip has ended.
    """

    def __init__(self, work: Path, threads: int, *, keep: bool = False) -> None:
        self.work, self.keep = work, keep
        self._pool = ThreadPoolExecutor(max(2, threads), "fetch")

    def begin(self, clip: Clip) -> Future[Path]:
        """What becomes the path of a clip's source; at once where it lies on a disk already."""
        if needs_fetching(clip):
            return self._pool.submit(fetch, clip, self.work / clip.name)
        there: Future[Path] = Future()
        there.set_result(Path(clip.location))
        return there

    def remove(self, clip: Clip) -> None:
        """Remove what was fetched of a clip."""
        if needs_fetching(clip) and not self.keep:
            shutil.rmtree(self.work / clip.name, ignore_errors=True)

    def close(self) -> None:
        """Wait for what is being fetched, and begin nothing more."""
        self._pool.shutdown(cancel_futures=True)


def fetch(clip: Clip, folder: Path, *, reads: int = READS, wait_s: float = 1.0) -> Path:
    """The bytes of a tar's member or of an object as a file in ``folder``, complete or not at all.

    Args:
        reads: how often a store is asked when it does not answer or answers with too few bytes.
        wait_s: before the second time; twice as long before every further one.
    Returns:
        the file; its name ends as the source's does.
    Raises:
        InputError: the tar was changed or cut since it was listed, or the object is gone.
        OSError: the store did not give all bytes.
        DiskFull: the disk has no room.
    """
    name = PurePosixPath(re.split(r"[/\\]", clip.member or clip.location)[-1]).name.partition("#")[0]
    target = folder / (re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "clip")
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.part")
    for attempt in range(reads):
        try:
            _copy(clip, temporary)
            break
        except FileNotFoundError as error:
            raise InputError(f"{clip.source} is not there any more: {error}") from error
        except Geo4DError:
            raise
        except Exception as error:
            if attempt + 1 == reads:
                raise OSError(f"{clip.source} could not be read {reads} times: {error}") from error
            log.warning("%s: %s; once more", clip.source, error)
            time.sleep(wait_s * 2**attempt)
    temporary.replace(target)
    return target


def _copy(clip: Clip, target: Path) -> None:
    """
    Raises:
        InputError: a tar on a disk ends too early.
        OSError: a store gave fewer bytes than it has.
    """
    left = clip.size
    with _open(clip.location) as source, target.open("wb") as file:
        source.seek(clip.offset)
        while left > 0:
            block = source.read(min(_BLOCK, left))
            if not block:
                break
            with output_errors(target):
                file.write(block)
            left -= len(block)
        with output_errors(target):
            file.flush()
            os.fsync(file.fileno())
    if left and not is_url(clip.location):
        raise InputError(
            f"{clip.source} ends {left} bytes before the {clip.size} that were listed; it was changed or cut: start again"
        )
    if left:
        raise OSError(f"{clip.size - left} of {clip.size} bytes came")
