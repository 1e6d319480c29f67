"""Options of a batch."""

from pathlib import Path

import pytest

from geo4d.batch.settings import BatchSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"clip_tries": 0},
        {"clip_timeout_s": 0.5},
        {"clip_timeout_s": float("nan")},
        {"lease_s": 0.5},
        {"keep_sources": True, "work": Path("/scratch")},
        {"worker_cpus": 0},
        {"engine": "ray", "worker_gpus": -1},
        {"ray_address": "auto"},
        {"worker_gpus": 1},
    ],
)
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        BatchSettings(**wrong)
