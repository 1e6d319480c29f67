"""The words between a worker and its coordinator; real processes are in ``test_local.py``."""

import signal
from multiprocessing.connection import Connection

import pytest
import torch

from geo4d.batch.jobs import CLIPS_JOB
from geo4d.batch.task import Task
from geo4d.batch.worker import Stages, _end_with_coordinator, work
from tests.batch.test_one import SETTINGS
from tests.support import batch_stub as batches


class ScriptedPipe(Connection):
    """Gives tasks in turn, then ends; keeps what is sent."""

    def __init__(self, *tasks: Task) -> None:
        self.tasks, self.sent = list(tasks), []
        self._handle = None  # nothing to close

    def send(self, words) -> None:
        self.sent.append(words)

    def recv(self) -> Task:
        if not self.tasks:
            raise EOFError
        return self.tasks.pop(0)


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The test's process stays as it is."""
    before = torch.get_num_threads()
    monkeypatch.setattr(signal, "signal", lambda *rest: None)
    monkeypatch.setattr("geo4d.batch.worker.faulthandler.enable", lambda: None)
    yield
    torch.set_num_threads(before)


def talk(settings, *tasks: Task) -> list[tuple]:
    pipe = ScriptedPipe(*tasks)
    work(pipe, CLIPS_JOB, settings, 1)
    return pipe.sent


def test_a_worker_says_what_it_is_where_it_is_and_what_came_of_it(tmp_path) -> None:
    video = batches.write_clip(tmp_path / "a.mp4", 12)
    tasks = [
        Task("a", str(video), str(tmp_path / "a")),
        Task("b", str(tmp_path / "no.mp4"), str(tmp_path / "b")),
    ]
    sent = talk(SETTINGS, *tasks)
    assert sent[0][0] == "ready"
    assert sent[0][1]["model"]["name"] == "truth"
    stages = [words[1:] for words in sent if words[0] == "stage"]
    assert ("predict", 1, 2) in stages
    assert ("predict", 2, 2) in stages
    assert len({stage[0] for stage in stages}) > 3
    ended = [words[1]["state"] for words in sent if words[0] == "ended"]
    assert ended == ["done", "failed"]


def test_a_model_that_cannot_be_loaded_is_refused_with_code_and_reason() -> None:
    sent = talk({"model": "no-such-model"})
    assert [words[:2] for words in sent] == [("refused", 2)]
    assert "no-such-model" in sent[0][2]


def test_a_process_that_nobody_started_ends_with_nobody() -> None:
    _end_with_coordinator()  # returns: there is no coordinator to watch


def test_progress_is_said_by_stage_by_window_and_now_and_then(monkeypatch) -> None:
    now, said = [100.0], []
    monkeypatch.setattr("geo4d.batch.worker.time.monotonic", lambda: now[0])
    stages = Stages(lambda *stage: said.append(stage))
    for done in range(1, 41):
        stages("track points", done, 40)
        now[0] += 0.125
    stages("predict", 1, 2)
    stages("predict", 2, 2)
    assert [stage[1] for stage in said] == [1, 9, 17, 25, 33, 1, 2]
