"""Who may write to an address of a store: one at a time, whatever clocks say and whoever dies."""

import time

import pytest

from geo4d.errors import OutputError, OutputInUse
from geo4d.formats.objects import Objects
from geo4d.results.remote_lock import StoreLock, owner_of
from tests.support.remote import take_at_once


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)


@pytest.fixture(params=["s3", "memory"])
def url(request, tmp_path) -> str:
    if request.param == "memory":
        pytest.importorskip("fsspec")
        return f"memory://locks/{tmp_path.name}"
    request.getfixturevalue("s3")
    return f"s3://bucket/{tmp_path.name}"


def test_only_one_creates_an_object(url) -> None:
    objects = Objects(url)
    assert objects.create("a", b"1")
    assert not objects.create("a", b"2")
    assert objects.read("a") == b"1"
    assert objects.written("b") is None
    before = objects.written("a")
    assert before is not None
    assert abs(before - time.time()) < 60


def test_one_holds_it_and_leaves_nothing(url) -> None:
    with StoreLock(url) as lock:
        lock.beat()
        lock.require()
        with pytest.raises(OutputInUse, match=r"another run \(process \d+ on .*sign of life [0-9]+ s ago"):
            StoreLock(url).__enter__()
    assert Objects(f"{url}.lock").list() == {}
    with StoreLock(url):
        pass


def test_of_many_at_a_time_one_gets_it(url) -> None:
    got, refused = take_at_once(url)
    assert (len(got), len(refused)) == (1, 5)


@pytest.mark.parametrize("ahead_s", [0, 86_400, -86_400])
def test_one_that_stopped_is_taken_over_by_the_clock_of_the_store(url, monkeypatch, ahead_s) -> None:
    """The clock of the store may be a day off ours; only its own differences count."""
    moved, real = [0.0], Objects.written

    def written(objects, name):
        found = real(objects, name)
        return None if found is None else found + ahead_s + (moved[0] if name.startswith("now-") else 0)

    monkeypatch.setattr(Objects, "written", written)
    dead = StoreLock(url)
    dead._take()
    moved[0] = 100.0
    with pytest.raises(OutputInUse):
        StoreLock(url).__enter__()
    moved[0] = 130.0
    with StoreLock(url) as second:
        assert second._number == 1
        dead.beat()  # wakes up
        assert dead.lost
        with pytest.raises(OutputInUse, match="taken over by another run"):
            dead.require()
        second.beat()
        assert not second.lost
    dead.__dict__["_thread"].start()
    dead.__exit__()
    assert Objects(f"{url}.lock").list() == {}


def test_what_the_same_owner_left_is_taken_over_at_once(url, tmp_path) -> None:
    mine, other = owner_of(tmp_path), "other"
    assert owner_of(tmp_path) == mine
    StoreLock(url, owner=mine)._take()
    for owner in (other, ""):
        with pytest.raises(OutputInUse):
            StoreLock(url, owner=owner).__enter__()
    with StoreLock(url, owner=mine) as lock:
        assert lock._number == 1


def test_a_lost_answer_does_not_lock_its_own_run_out(s3, monkeypatch) -> None:
    real, calls = Objects._repeat, []

    def twice(objects, request, what):
        if what == "take 0":
            calls.append(request())
        return real(objects, request, what)

    monkeypatch.setattr(Objects, "_repeat", twice)  # the first creation is done, its answer unknown
    with StoreLock("s3://bucket/lost-answer") as lock:
        assert (calls, lock._number) == ([True], 0)


def test_a_store_that_is_gone_for_long_loses_the_lock(s3, monkeypatch) -> None:
    with StoreLock("s3://bucket/gone") as lock:
        s3.faults.extend(("GET", "gone.lock", "503") for _ in range(99))
        lock.beat()
        assert not lock.lost
        lock._beaten -= 121
        lock.beat()
        s3.faults.clear()
        with pytest.raises(OutputInUse):
            lock.require()
    with pytest.raises(OutputError, match="is the bucket there"):
        StoreLock("s3://no-such-bucket/a").__enter__()
