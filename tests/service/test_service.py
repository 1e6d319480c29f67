"""The queue and what happens to jobs: cancelled, deleted, crashed, late, taken up again by the next service."""

import shutil
import threading
from pathlib import Path

import pytest

from geo4d.errors import CheckpointError, Geo4DError
from geo4d.service.jobs import RECORD, SOURCE
from geo4d.service.refusals import Refusal
from geo4d.service.service import Service, outcome_of
from geo4d.service.settings import ServiceSettings
from tests.support.served import await_true, stub_run, windows


def put(service: Service, clip: Path, **options):
    with service.slot() as place:
        shutil.copy(clip, place / SOURCE / "box.mp4")
        return service.accept(place, "box.mp4", clip.stat().st_size, options)


def ended(service: Service, id: str):
    await_true(lambda: service.store.get(id).is_ended, "the job never ended")
    return service.store.get(id)


def running(service: Service, id: str) -> None:
    await_true(lambda: service.store.get(id).stage == "predict", "the job never came to its windows")


def settings(folder: Path, **more) -> ServiceSettings:
    return ServiceSettings(folder=folder, **{"min_free_mb": 1, **more})


@pytest.fixture(scope="module")
def clip_of_five(tmp_path_factory) -> Path:
    """A clip whose windows kill their process."""
    from tests.support.batch_stub import write_clip

    return write_clip(tmp_path_factory.mktemp("poison") / "five.mp4", 5)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A service whose windows take a while, and kill their process if they have five frames; its trace of windows."""
    trace = tmp_path_factory.mktemp("trace")
    folder = tmp_path_factory.mktemp("slow") / "jobs"
    options = settings(folder, queue=3, uploads=2, job_s=60)
    with Service(options, stub_run(sleep=0.4, trace=str(trace), poison=5)) as service:
        yield service


def test_the_queue_is_bounded_and_says_when_to_come_again(slow, clip) -> None:
    first = put(slow, clip)
    running(slow, first.id)
    waiting = [put(slow, clip) for _ in range(2)]
    with slow.slot():  # one that comes in counts, too
        with pytest.raises(Refusal, match="2 jobs wait, 1 come in") as caught, slow.slot():
            pass
        assert (caught.value.status, caught.value.retry_s >= 2) == (429, True)
    for job in (first, *waiting):
        slow.delete(job.id)
    with slow.slot(), slow.slot(), pytest.raises(Refusal, match="2 uploads are under way"), slow.slot():
        pass
    assert slow.uploading == 0
    assert list((slow.store.folder / "incoming").iterdir()) == []


def test_cancelled_while_it_waits_and_while_it_runs(slow, clip) -> None:
    first, second = put(slow, clip), put(slow, clip, stop=6)
    running(slow, first.id)
    assert slow.cancel(second.id).state == "cancelled"
    assert slow.cancel(first.id).state == "cancelled"
    await_true(lambda: not slow.workers.busy, "the process goes on")
    for job in (first, second):
        assert slow.store.get(job.id).state == "cancelled"
        place = slow.store.place(job.id)
        await_true(lambda place=place: [one.name for one in place.iterdir()] == [RECORD], "files stay")
        with pytest.raises(Refusal) as caught:
            slow.cancel(job.id)
        assert caught.value.status == 409
    assert ended(slow, put(slow, clip, stop=6).id).state == "done"


def test_deleted_while_it_runs(slow, clip) -> None:
    job = put(slow, clip)
    running(slow, job.id)
    slow.delete(job.id)
    assert slow.store.get(job.id) is None
    assert not slow.store.place(job.id).exists()
    with pytest.raises(Refusal) as caught:
        slow.delete(job.id)
    assert caught.value.status == 404


def test_a_crash_is_one_failed_job(slow, clip, clip_of_five) -> None:
    poisoned, healthy = put(slow, clip_of_five), put(slow, clip, stop=6)
    job = ended(slow, poisoned.id)
    assert (job.state, job.exit_code) == ("failed", 137)
    assert "SIGKILL" in job.reason
    await_true(lambda: [one.name for one in slow.store.place(job.id).iterdir()] == [RECORD], "files stay")
    assert ended(slow, healthy.id).state == "done"
    assert slow.workers.fault is None


@pytest.mark.slow
def test_a_job_that_takes_too_long(tmp_path, clip) -> None:
    with Service(settings(tmp_path / "jobs", job_s=2.0), stub_run(sleep=30)) as service:
        job = ended(service, put(service, clip).id)
        assert job.state == "failed"
        assert "longer than the 2 seconds" in job.reason


@pytest.mark.slow
def test_jobs_go_on_from_their_windows_with_the_next_service(tmp_path, clip) -> None:
    """As for a service that is killed, see tests/apps/commands/test_serve.py; but this start does not count."""
    trace = tmp_path / "trace"
    trace.mkdir()
    folder = tmp_path / "jobs"
    with Service(settings(folder), stub_run(sleep=1.0, trace=str(trace))) as service:
        job, later = put(service, clip), put(service, clip, stop=3)
        await_true(
            lambda: list(service.store.place(job.id).rglob("window_000000_try0*")), "no window was kept"
        )
    before = windows(trace)
    with Service(settings(folder), stub_run(trace=str(trace))) as service:
        assert ended(service, job.id).summary["frames"] == 10
        assert service.store.get(job.id).starts == 1
        assert ended(service, later.id).summary["frames"] == 3
    assert windows(trace).count("0") == before.count("0") + 1  # that of the other job


def test_old_jobs_are_removed_by_the_clock(tmp_path, clip) -> None:
    now = [1000.0]
    with Service(settings(tmp_path / "jobs", keep_h=1.0), stub_run(), clock=lambda: now[0]) as service:
        job = ended(service, put(service, clip, stop=3).id)
        assert service.expire() == []
        now[0] += 3601
        assert service.expire() == [job.id]
        assert not service.store.place(job.id).exists()


def test_a_disk_without_room_takes_nothing(slow) -> None:
    free = shutil.disk_usage(slow.store.folder).free
    with pytest.raises(Refusal) as caught, slow.slot(free + 10**9):
        pass
    assert caught.value.status == 413  # larger than any clip here
    object.__setattr__(slow.settings, "min_free_mb", free / 1e6 + 1000)
    try:
        with pytest.raises(Refusal, match="MB left") as caught, slow.slot():
            pass
    finally:
        object.__setattr__(slow.settings, "min_free_mb", 1)
    assert caught.value.status == 507


def test_a_model_that_is_not_there(tmp_path) -> None:
    run, before = {"model": "tiny", "weights": tmp_path / "none.safetensors"}, set(threading.enumerate())
    with pytest.raises(Geo4DError) as caught:
        Service(settings(tmp_path / "jobs"), run).__enter__()
    assert caught.value.exit_code == CheckpointError.exit_code
    assert not [one for one in set(threading.enumerate()) - before if one.name == "geo4d service"]
    with pytest.raises(ValueError, match="unknown setting"):
        Service(settings(tmp_path / "jobs"), {"models": "tiny"})


def test_notes_become_refusals() -> None:
    assert outcome_of({"exit_code": 0, "kind": "", "x": 1})["x"] == 1
    with pytest.raises(Refusal, match="why") as caught:
        outcome_of({"exit_code": 3, "kind": "TooManyFrames", "reason": "why"})
    assert (caught.value.status, caught.value.code) == (413, 3)
