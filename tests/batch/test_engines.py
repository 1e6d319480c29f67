"""The engine that was asked for, as it was asked for."""

import builtins

import pytest

from geo4d.batch.engine import Engine
from geo4d.batch.engines import make_engine
from geo4d.batch.local import LocalEngine
from geo4d.batch.settings import WorkerSettings
from geo4d.errors import MissingExtraError
from tests.support.toy_job import TOY_JOB


def test_the_local_engine_is_made_with_the_threads_that_were_asked_for() -> None:
    made = make_engine(WorkerSettings(workers=3, worker_cpus=5), TOY_JOB, {})
    assert isinstance(made, LocalEngine)
    assert (made.count, made.threads) == (3, 5)


def test_without_ray_the_extra_is_named(monkeypatch) -> None:
    real = builtins.__import__

    def no_ray(name, *rest):
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest)

    made = make_engine(WorkerSettings(engine="ray"), TOY_JOB, {})
    assert isinstance(made, Engine)
    monkeypatch.setattr(builtins, "__import__", no_ray)
    with pytest.raises(MissingExtraError, match=r"geo4d\[ray\]"):
        made.__enter__()
