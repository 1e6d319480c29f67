"""Objects below a prefix of a store (``s3://bucket/prefix``), whole ones, by fsspec; requests that fail are repeated."""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from geo4d.errors import Geo4DError, InputError, MissingExtraError, OutputError

log = logging.getLogger(__name__)

STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "memory": "fsspec"}
"""Kinds of stores, and the package that fsspec needs for each."""

REQUESTS = 4
"""How often a request is made before it counts as failed, beside what the package of the store repeats itself."""

NO_ACCESS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ParamValidationError",
    "DefaultCredentialsError",
)
"""Errors of the stores' packages, by name, that no repetition mends."""

WAIT_S = 1.0
"""Before the second request; twice as long before every further one."""

THREADS = 8
"""Objects that are written or read at a time."""

_Found = TypeVar("_Found")


def is_url(place: object) -> bool:
    """Whether a place is an address (``scheme://``) and not a path."""
    return isinstance(place, str) and "://" in place


def open_store(url: str) -> tuple[Any, str]:
    """The store of an address, as fsspec has it, and the path in it.

    Raises:
        InputError: an unknown kind of store.
        MissingExtraError: the package for the store is not installed.
    """
    kind = url.split("://")[0]
    if kind not in STORES:
        names = ", ".join(f"{name}://" for name in STORES)
        raise InputError(f"expected a store of the kinds {names}, got {url}; use a folder")
    try:
        from fsspec.core import url_to_fs

        store, path = url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(STORES[kind], "remote", f"using {url}") from error
    return store, str(path)


class Objects:
    """The objects below a prefix, by their names behind it.

    Args:
        url: of the prefix, without a slash at its end.
        requests: see ``REQUESTS``.
        wait_s: see ``WAIT_S``.
    """

    def __init__(self, url: str, *, requests: int = REQUESTS, wait_s: float = WAIT_S) -> None:
        self.url = url.rstrip("/")
        self.requests, self.wait_s = requests, wait_s
        self._store, self._path = open_store(self.url)

    def list(self) -> dict[str, int]:
        """Name -> bytes of every object.

        Raises:
            OutputError: the store does not answer, or refuses.
        """

        def find() -> dict[str, int]:
            self._store.invalidate_cache()
            found = self._store.find(self._path, detail=True)
            prefix = self._path.strip("/") + "/"
            names = {name.strip("/"): int(info.get("size") or 0) for name, info in found.items()}
            return {
                name.removeprefix(prefix): size for name, size in names.items() if name.startswith(prefix)
            }

        try:
            return self._repeat(find, "be listed")
        except FileNotFoundError as error:
            raise OutputError(f"{self.url} could not be listed: {error}; is the bucket there?") from error

    def check(self) -> None:
        """Make sure that the store answers, and that the bucket is there.

        Raises:
            OutputError: otherwise.
        """
        bucket = self._path.strip("/").split("/")[0]
        there = self._repeat(lambda: bool(self._store.exists(bucket)), "be asked for its bucket")
        if not there and not self.url.startswith("memory://"):
            raise OutputError(
                f"expected a bucket {bucket} for {self.url}, found none that you may see; make it"
            )

    def read(self, name: str) -> bytes | None:
        """A whole object; None where it is not there. Who knows its hash should compare: a cut answer may look whole.

        Raises:
            OutputError: the store does not answer, or refuses.
        """
        try:
            return self._repeat(lambda: bytes(self._store.cat_file(f"{self._path}/{name}")), f"give {name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes | Path) -> None:
        """Write an object; it appears whole or not at all, as stores promise.

        Raises:
            OutputError: the store does not answer, or refuses.
        """

        def put() -> None:
            content = data.read_bytes() if isinstance(data, Path) else data
            self._store.pipe_file(f"{self._path}/{name}", content)

        try:
            self._repeat(put, f"take {name}")
        except FileNotFoundError as error:
            raise OutputError(f"{self.url} could not take {name}: {error}; is the bucket there?") from error

    def create(self, name: str, data: bytes) -> bool:
        """Write an object where none of this name is, which of several at a time only one can; whether it was this one.

        A repeated request may find what the first has written, though its answer was lost: compare what is there.

        Raises:
            OutputError: the store does not answer, refuses, or its package knows no conditional writes.
        """

        def put() -> bool:
            try:
                self._store.pipe_file(f"{self._path}/{name}", data, mode="create")
            except FileExistsError:
                return False
            except (TypeError, NotImplementedError) as error:
                raise OutputError(
                    f"{self.url}: the package of this store knows no conditional writes ({error}); install a newer one"
                ) from error
            return True

        try:
            return self._repeat(put, f"take {name}")
        except FileNotFoundError as error:
            raise OutputError(f"{self.url} could not take {name}: {error}; is the bucket there?") from error

    def written(self, name: str) -> float | None:
        """When an object was written, seconds by the clock of the store; None where it is not there.

        Raises:
            OutputError: the store does not answer, or refuses.
        """

        def ask_time() -> float:
            self._store.invalidate_cache()
            return float(self._store.modified(f"{self._path}/{name}").timestamp())

        try:
            return self._repeat(ask_time, f"say when {name} was written")
        except FileNotFoundError:
            return None

    def write_all(self, files: Iterable[tuple[str, Path]]) -> None:
        """Write many objects, several at a time."""
        with ThreadPoolExecutor(THREADS, "upload") as pool:
            writing = [pool.submit(self.write, name, path) for name, path in files]
            try:
                for one in writing:
                    one.result()
            except BaseException:
                for one in writing:
                    one.cancel()
                raise

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are fine.

        Raises:
            OutputError: the store does not answer, or refuses.
        """

        def remove(name: str) -> None:
            try:
                self._repeat(lambda: self._store.rm_file(f"{self._path}/{name}"), f"remove {name}")
            except FileNotFoundError:
                return

        with ThreadPoolExecutor(THREADS, "remove") as pool:
            list(pool.map(remove, names))

    def _repeat(self, request: Callable[[], _Found], what: str) -> _Found:
        return ask(request, self.url, what, OutputError, requests=self.requests, wait_s=self.wait_s)


def ask(
    request: Callable[[], _Found],
    url: str,
    what: str,
    failure: type[Geo4DError],
    *,
    requests: int = REQUESTS,
    wait_s: float = WAIT_S,
) -> _Found:
    """A request until it is answered; that something is not there is an answer, and a refusal, too.

    Args:
        url: of the store, for messages.
        what: it could not do, such as ``be listed``.
        failure: what is raised where it is not answered or refused.
        requests, wait_s: see ``REQUESTS``, ``WAIT_S``.
    Raises:
        FileNotFoundError: it is not there.
    """
    for attempt in range(requests):
        try:
            return request()
        except (FileNotFoundError, Geo4DError):
            raise
        except PermissionError as error:
            raise failure(f"{url} could not {what}: {error}; check the access to it") from error
        except Exception as error:  # every store has errors of its own
            if type(error).__name__ in NO_ACCESS:
                raise failure(
                    f"{url} could not {what}: {error}; check the address, and the credentials of the store "
                    "(s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
                ) from error
            if attempt + 1 == requests:
                raise failure(
                    f"{url} could not {what}, asked {requests} times: {type(error).__name__}: {error}"
                ) from error
            log.warning("%s could not %s: %s; once more", url, what, error)
            time.sleep(wait_s * 2**attempt)
    raise AssertionError("no request was made")
