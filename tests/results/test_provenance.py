import platform
import time

import pytest

from geo4d.results import provenance
from geo4d.results.provenance import StageClock, machine, peak_memory, versions


@pytest.fixture
def clock(monkeypatch):
    """Times that stand still until they are moved: wall, and processor at twice that (two threads)."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 2 * now[0])
    return now


def test_inner_stages_do_not_count_for_outer_ones(clock) -> None:
    stages = StageClock()
    clock[0] += 50  # before the first stage: nobody's
    with stages("fusion"):
        clock[0] += 3
        with stages("reading"):
            clock[0] += 10
        clock[0] += 4
        with stages("reading"):
            clock[0] += 1
    clock[0] += 50
    assert stages.seconds == {"fusion": 7, "reading": 11}
    assert stages.cpu_seconds == {"fusion": 14, "reading": 22}


def test_a_stage_that_fails_is_charged_and_closed(clock) -> None:
    stages = StageClock()

    def fail() -> None:
        with stages("a"):
            clock[0] += 2
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    clock[0] += 9
    with stages("b"):
        clock[0] += 1
    assert stages.seconds == {"a": 2, "b": 1}


def test_versions_name_what_is_installed_and_what_is_not(monkeypatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package-at-all"))
    found = versions()
    import numpy

    assert found["numpy"] == numpy.__version__
    assert found["no-such-package-at-all"] == "missing"
    assert found["python"] == platform.python_version()
    assert set(found) == {"geo4d", "python", "numpy", "no-such-package-at-all"}


def test_the_machine_is_named_by_its_kind_alone() -> None:
    found = machine()
    assert set(found) == {"system", "machine", "cpus"}
    assert platform.node() not in map(str, found.values()) or not platform.node()


def test_peak_memory_is_in_bytes_and_never_falls() -> None:
    before = peak_memory()
    block = bytearray(64 * 2**20)
    block[:: 2**12] = b"x" * len(block[:: 2**12])
    after = peak_memory()
    assert before is not None
    assert after is not None
    assert after >= before > 10 * 2**20
    del block
    assert peak_memory() >= after
