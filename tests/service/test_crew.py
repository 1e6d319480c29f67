"""Processes that are killed, late, cancelled and stopped; the target is a small one, without any model."""

import os
import signal
import sys
import time

import pytest

from geo4d.errors import ResourceError
from geo4d.service.child import Setup
from geo4d.service.crew import Crew, Died, Refused, Ticket
from tests.support.served import await_true


def small_target(pipe, setup) -> None:
    """Does what the words of a task say."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if setup.settings == {"model": "broken"}:
        pipe.send(("refused", 5, "no weights"))
        return
    if setup.settings == {"model": "deadly"}:
        os.kill(os.getpid(), signal.SIGKILL)
    pipe.send(("ready", {"name": "small", "pid": os.getpid()}))
    try:
        while True:
            word, number = pipe.recv()
            pipe.send(("stage", word, 1, 2))
            if word == "kill":
                os.kill(os.getpid(), number)
            time.sleep(number if word == "sleep" else 0)
            if word == "late":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                pipe.send(("stage", "deaf", 1, 2))
                time.sleep(0.3)
            if word == "stubborn":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                pipe.send(("stage", "deaf", 1, 2))
                time.sleep(60)
            pipe.send(("ended", {"word": word, "pid": os.getpid()}))
    except EOFError:
        return


def crew(*models: str, eager: bool = True) -> Crew:
    setups = [Setup({"model": model}, 1, {}) for model in models or ("small",)]
    return Crew(setups, eager=eager, target=small_target)


def ticket(word: str, number: float = 0, limit_s: float = 60, **more) -> Ticket:
    return Ticket((word, number), limit_s, **more)


def test_tasks_one_after_the_other_in_one_process() -> None:
    said = []
    with crew() as small:
        assert small.wait_ready(30)["name"] == "small"
        first = small.submit(ticket("a", on_note=lambda *words: said.append(words)))
        second = small.submit(ticket("b"))
        assert first.outcome.result(30)["pid"] == second.outcome.result(30)["pid"]
        assert said == [("stage", "a", 1, 2)]
        await_true(lambda: small.busy == 0, "it stays busy")
        assert (small.size, small.ready) == (1, 1)
    assert small.ready == 0


def test_a_death_is_one_failed_task() -> None:
    with crew() as small:
        dying, next_one = small.submit(ticket("kill", signal.SIGKILL)), small.submit(ticket("b"))
        with pytest.raises(Died, match=r"SIGKILL .*during kill \(1 of 2\)") as caught:
            dying.outcome.result(30)
        assert (caught.value.why, caught.value.exit_code) == ("crash", 137)
        assert next_one.outcome.result(30)["word"] == "b"
        segfault = small.submit(ticket("kill", signal.SIGSEGV))
        with pytest.raises(Died, match="SIGSEGV"):
            segfault.outcome.result(30)


def test_a_process_killed_while_it_had_nothing_to_do_is_replaced() -> None:
    with crew() as small:
        pid = small.wait_ready(30)["pid"]
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: not small._hands[0]._process.is_alive(), "it lives")
        assert small.submit(ticket("a")).outcome.result(30)["pid"] != pid


def test_too_long_and_cancelled() -> None:
    with crew() as small:
        late = small.submit(ticket("sleep", 60, limit_s=0.3))
        with pytest.raises(Died, match="longer than the 0 seconds") as caught:
            late.outcome.result(30)
        assert caught.value.why == "time"
        began = []
        running = small.submit(ticket("sleep", 60, on_note=lambda *words: began.append(words)))
        waiting = small.submit(ticket("a"))
        await_true(lambda: began, "it never began")
        small.cancel(waiting)
        small.cancel(running)
        for one in (running, waiting):
            with pytest.raises(Died) as caught:
                one.outcome.result(30)
            assert caught.value.why == "cancel"
        assert small.submit(ticket("b")).outcome.result(30)["word"] == "b"


def test_a_process_that_does_not_listen_is_killed(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.service.crew._GRACE_S", 0.5)
    with crew() as small:
        said = []
        deaf = small.submit(ticket("stubborn", on_note=lambda *words: said.append(words[1])))
        await_true(lambda: "deaf" in said, "it never began")
        small.cancel(deaf)
        with pytest.raises(Died) as caught:
            deaf.outcome.result(30)
        assert (caught.value.why, caught.value.exit_code) == ("cancel", 137)


def test_an_end_that_comes_too_late_does_not_hit_the_next_task(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.service.crew._GRACE_S", 0.2)
    with crew() as small:
        late = ticket("late", on_note=lambda *words: words[1] == "deaf" and small.cancel(late))
        small.submit(late)
        pid = late.outcome.result(30)["pid"]
        assert small.submit(ticket("b")).outcome.result(30)["pid"] != pid


def test_a_task_that_is_not_wanted_any_more_is_not_begun() -> None:
    with crew() as small:
        refused = small.submit(ticket("a", on_start=lambda: False))
        with pytest.raises(Died) as caught:
            refused.outcome.result(30)
        assert caught.value.why == "cancel"
        assert small.submit(ticket("b")).outcome.result(30)["word"] == "b"


def test_what_waits_and_runs_when_the_service_ends() -> None:
    began = []
    with crew() as small:
        running = small.submit(ticket("sleep", 60, on_note=lambda *words: began.append(words)))
        waiting = small.submit(ticket("a"))
        await_true(lambda: began, "it never began")
    for one in (running, waiting):
        with pytest.raises(Died) as caught:
            one.outcome.result(0)
        assert caught.value.why == "stop"


def test_a_model_that_cannot_be_loaded() -> None:
    with crew("broken") as small:
        with pytest.raises(Refused, match="no weights") as caught:
            small.wait_ready(30)
        assert caught.value.exit_code == 5
        with pytest.raises(Refused):
            small.submit(ticket("a")).outcome.result(30)
    with crew("deadly", eager=False) as small, pytest.raises(ResourceError, match="SIGKILL"):
        small.submit(ticket("a")).outcome.result(30)
