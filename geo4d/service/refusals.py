"""What the service does not do, and says so with a status of HTTP."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from geo4d.errors import (
    CheckpointError,
    DiskFull,
    DoubtfulResult,
    Geo4DError,
    GeometryError,
    InputError,
    MissingExtraError,
    PluginError,
    ResourceError,
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Refusal(Geo4DError):
    """A request that is not done.

    Args:
        status: of HTTP.
        message: for people.
        retry_s: seconds after which it may be; None: not at all.
        code: exit code of the command line for the same failure; None where it has none.
    """

    def __init__(
        self, status: int, message: str, *, retry_s: float | None = None, code: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry_s, self.code = status, retry_s, code


_BY_CODE = {
    2: 422,
    InputError.exit_code: 422,
    CheckpointError.exit_code: 503,
    MissingExtraError.exit_code: 501,
    PluginError.exit_code: 501,
    ResourceError.exit_code: 503,
    GeometryError.exit_code: 422,
    DoubtfulResult.exit_code: 422,
}
_BY_KIND = {"TooManyFrames": 413, DiskFull.__name__: 507, "WorkSpaceFull": 507}


def status_of(code: int, kind: str) -> int:
    """Status of HTTP for a failure of a task.

    Args:
        code: exit code of the command line for it.
        kind: class of the error.
    """
    return _BY_KIND.get(kind, _BY_CODE.get(code, 500))


@contextmanager
def full_disk() -> Iterator[None]:
    """
    Raises:
        Refusal: 507, where what is written inside finds no room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Refusal(507, "the disk of the service is full; nothing of the clip was kept") from error
