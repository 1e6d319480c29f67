"""What runs in a process of the service: tasks from a pipe, one after the other, until the pipe or the service ends."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Setup:
    """What a process is from its start on.

    Attributes:
        settings: keywords of ``reconstruct`` whose model it loads; None: none, it looks at clips and writes exports.
        threads: numerical threads.
        variables: of the environment, set before any library is loaded.
    """

    settings: Mapping[str, Any] | None
    threads: int
    variables: Mapping[str, str]


def serve_tasks(pipe: Connection, setup: Setup) -> None:
    """Take tasks from the pipe and do them.

    Sends ``("ready", identity)`` or ``("refused", exit code, reason)`` once, then for each task any number of
    ``("plan", plan)`` and ``("stage", name, done, total)``, and ``("ended", note)``.
    """
    os.environ.update(setup.variables)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the service decides
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_service, daemon=True).start()
    faulthandler.enable()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")

    from geo4d.batch.one import load
    from geo4d.batch.worker import set_threads
    from geo4d.errors import explain
    from geo4d.service.work import do

    set_threads(setup.threads)
    loaded = None
    try:
        if setup.settings is not None:
            loaded = load(setup.settings)
    except Exception as error:
        pipe.send(("refused", *explain(error)))
        return
    pipe.send(("ready", None if loaded is None else _about(loaded)))
    with contextlib.suppress(EOFError, OSError):  # the service closed the pipe
        while True:
            task = pipe.recv()
            pipe.send(("ended", do(task, loaded, lambda *words: pipe.send(words))))


def _end(number: int, frame: FrameType | None) -> None:
    """Tidy up and end; once: another signal must not disturb that."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _about(loaded: Any) -> dict[str, Any]:
    """What the page says of the model."""
    info = loaded.predictor.info
    about = {"name": info.name, "description": info.description, "licence": info.licence}
    return {**about, "device": loaded.identity["device"], "scale_kind": info.scale_kind}


def _end_with_service() -> None:
    """A process whose service was killed works for nobody: it ends at once, and finished windows stay."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
