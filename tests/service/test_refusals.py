import errno

import pytest

from geo4d.errors import CheckpointError, DiskFull, InputError, MissingExtraError, explain
from geo4d.service.refusals import Refusal, full_disk, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("x"), 422),
        (ValueError("x"), 422),
        (DiskFull("x"), 507),
        (MissingExtraError("usd-core", "usd", "the export"), 501),
        (CheckpointError("x"), 503),
        (KeyError("x"), 500),
    ],
)
def test_failures_have_a_status(error, status) -> None:
    assert status_of(explain(error)[0], type(error).__name__) == status


def test_a_full_disk_is_said() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with pytest.raises(Refusal) as caught, full_disk():
            raise OSError(number, "no")
        assert caught.value.status == 507
    with pytest.raises(PermissionError), full_disk():
        raise PermissionError(errno.EACCES, "no")
