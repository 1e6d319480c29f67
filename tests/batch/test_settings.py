"""Options of a batch."""

from pathlib import Path

import pytest

from geo4d.batch.settings import BatchSettings


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"clip_tries": 0}, {"lease_s": 0.5}, {"keep_sources": True, "work": Path("/scratch")}],
)
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        BatchSettings(**wrong)
