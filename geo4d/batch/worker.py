"""What runs in a worker process: the model once, then clip after clip, until the pipe or the coordinator ends."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any


def work(pipe: Connection, settings: Mapping[str, Any], threads: int) -> None:
    """Take tasks from the pipe, and send back what became of them.

    Sends ``("ready", identity)`` or ``("refused", exit code, reason)`` once, then for each task ``("stage", name, done,
    total)`` when a stage begins and ``("ended", note)``.

    Args:
        settings: keywords of ``reconstruct``.
        threads: numerical threads of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the coordinator decides
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_end_with_coordinator, daemon=True).start()
    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    import cv2
    import torch

    from geo4d.batch.one import load, run_clip
    from geo4d.errors import explain

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        loaded = load(settings)
    except Exception as error:
        pipe.send(("refused", *explain(error)))
        return
    pipe.send(("ready", loaded.identity))
    with contextlib.suppress(EOFError, OSError):  # the coordinator closed the pipe
        while True:
            task = pipe.recv()
            pipe.send(("ended", run_clip(loaded, task, _Stages(pipe))))


class _Stages:
    """Says on the pipe when another stage begins or a window is done."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._last = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._last or stage == "predict":
            self._last = stage
            self._pipe.send(("stage", stage, done, total))


def _end_with_coordinator() -> None:
    """A worker whose coordinator was killed works for nobody: it ends at once, and finished windows stay."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
