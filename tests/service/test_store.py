import json
from pathlib import Path

import pytest

from geo4d.errors import OutputError, OutputInUse
from geo4d.service.jobs import MOST_STARTS, RECORD, SOURCE
from geo4d.service.store import INCOMING, JOBS, MARK, JobStore


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def add(store: JobStore, name: str = "a.mp4"):
    place = store.new_place()
    (place / SOURCE / name).write_bytes(b"clip")
    return store.add(place, name, 4, {"stride": 2})


def test_jobs_outlive_their_service(tmp_path) -> None:
    clock = Clock()
    with JobStore(tmp_path / "jobs", clock) as store:
        first = add(store)
        clock.now += 1
        second = add(store)
        assert [job.id for job in store.all()] == [second.id, first.id]
        assert [job.id for job in store.waiting()] == [first.id, second.id]
        store.change(second.id, state="done", ended_s=5.0, exit_code=0)
    with JobStore(tmp_path / "jobs", clock) as store:
        assert store.get(first.id) == first
        assert store.get(second.id).state == "done"
        assert (store.place(first.id) / SOURCE / "a.mp4").read_bytes() == b"clip"


def test_what_ran_waits_again_but_not_for_ever(tmp_path) -> None:
    with JobStore(tmp_path / "jobs") as store:
        id = add(store).id
    for start in range(1, MOST_STARTS + 1):
        with JobStore(tmp_path / "jobs") as store:
            assert store.get(id).state == "queued"
            store.change(id, state="running", starts=start)
            store.change(id, keep=False, stage="predict", done=1, total=2)
    with JobStore(tmp_path / "jobs") as store:
        job = store.get(id)
        assert (job.state, job.stage) == ("failed", "")
        assert "3 times" in job.reason


def test_a_change_only_from_the_states_that_are_meant(tmp_path) -> None:
    with JobStore(tmp_path / "jobs") as store:
        id = add(store).id
        assert store.change(id, only=["queued"], state="cancelled").state == "cancelled"
        assert store.change(id, only=["queued"], state="running") is None
        assert store.get(id).state == "cancelled"
        assert store.change("f" * 32, state="running") is None


def test_one_service_at_a_time(tmp_path) -> None:
    with JobStore(tmp_path / "jobs"), pytest.raises(OutputInUse, match="another service"):
        JobStore(tmp_path / "jobs").__enter__()
    with JobStore(tmp_path / "jobs"):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="other files"):
        JobStore(tmp_path).__enter__()
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]
    with JobStore(tmp_path / "jobs"):
        pass
    (tmp_path / "jobs" / MARK).write_text('{"layout": 99}')
    with pytest.raises(OutputError, match="another version"):
        JobStore(tmp_path / "jobs").__enter__()


def test_halves_are_removed_and_broken_records_left_alone(tmp_path, caplog) -> None:
    with JobStore(tmp_path / "jobs") as store:
        kept, broken, half = add(store).id, add(store).id, add(store).id
        store.new_place()
    folder = tmp_path / "jobs" / JOBS
    (folder / broken / RECORD).write_text("{")
    (folder / half / RECORD).unlink()
    with JobStore(tmp_path / "jobs") as store:
        assert [job.id for job in store.all()] == [kept]
        assert sorted(entry.name for entry in folder.iterdir()) == sorted([kept, broken])
        assert list((tmp_path / "jobs" / INCOMING).iterdir()) == []
    assert "left alone" in caplog.text


def test_old_jobs_go_and_waiting_ones_stay(tmp_path) -> None:
    clock = Clock()
    with JobStore(tmp_path / "jobs", clock) as store:
        waits, old, young = add(store).id, add(store).id, add(store).id
        store.change(old, state="failed", ended_s=clock.now)
        clock.now += 100
        store.change(young, state="done", ended_s=clock.now)
        assert store.expire(100.0) == [old]
        assert {job.id for job in store.all()} == {waits, young}
        assert not store.place(old).exists()


def test_clearing_and_deleting(tmp_path) -> None:
    with JobStore(tmp_path / "jobs") as store:
        id = add(store).id
        (store.place(id) / ".result.hidden").mkdir()
        store.clear(id)
        assert [entry.name for entry in store.place(id).iterdir()] == [RECORD]
        assert json.loads((store.place(id) / RECORD).read_text())["id"] == id
        assert store.delete(id)
        assert not store.delete(id)
        assert list(Path(store.folder / JOBS).iterdir()) == []
