"""Processes of the service, each with a thread here that gives it tasks and hears what becomes of them."""

import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from geo4d.errors import Geo4DError, ResourceError
from geo4d.service.child import Setup, serve_tasks

STARTS = 2
"""How often in a row a process may die before it is ready."""

_GRACE_S = 10.0
"""Seconds that a process has to end by itself."""

_LOOK_S = 0.5
"""Seconds between looks at the clock."""


class Died(Geo4DError):
    """The process of a task ended, or was ended, before the task did.

    Args:
        why: ``crash``, ``time`` (it took too long), ``cancel`` or ``stop`` (the service ends).
    """

    def __init__(self, message: str, exit_code: int, why: str) -> None:
        super().__init__(message)
        self.exit_code, self.why = exit_code, why


class Refused(Geo4DError):
    """A process cannot begin its work: the model cannot be loaded."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Ticket:
    """A task on its way.

    Attributes:
        task: what the process is sent.
        limit_s: seconds that it may take.
        on_note: gets what the process says meanwhile; called in the thread of the process.
        on_start: called before the process gets the task; False gives the task up.
        outcome: what it came to: a note, or ``Died`` or ``Refused``.
    """

    task: Any
    limit_s: float
    on_note: Callable[..., None] = lambda *words: None
    on_start: Callable[[], bool] = lambda: True
    outcome: "Future[Mapping[str, Any]]" = field(default_factory=Future)
    is_cancelled: bool = False


class Crew:
    """So many processes of one kind. Use as a context manager; leaving it ends them.

    Args:
        setups: one for each process.
        eager: start the processes at once and again after a death, not only when there is something to do.
        target: what runs in them.
    """

    def __init__(
        self, setups: Sequence[Setup], *, eager: bool, target: Callable[..., None] = serve_tasks
    ) -> None:
        self.eager, self.target, self.is_started = eager, target, False
        self.about: Mapping[str, Any] | None = None
        self.fault: Geo4DError | None = None
        self.tickets: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._hands = [_Hand(self, setup) for setup in setups]

    def __enter__(self) -> "Crew":
        self.is_started = True
        for hand in self._hands:
            hand.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        if not self.is_started:
            return
        for hand in self._hands:
            self.tickets.put(None)
            hand.end("stop")
        for hand in self._hands:
            hand.thread.join()

    @property
    def size(self) -> int:
        """Processes that there should be."""
        return len(self._hands)

    @property
    def ready(self) -> int:
        """Processes that have begun their work."""
        return sum(hand.is_ready for hand in self._hands)

    @property
    def busy(self) -> int:
        """Processes that have a task."""
        return sum(hand.ticket is not None for hand in self._hands)

    @property
    def is_stopping(self) -> bool:
        """The service ends."""
        return self._stopping.is_set()

    def submit(self, ticket: Ticket) -> Ticket:
        """Queue a task."""
        self.tickets.put(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """End a task, also one that a process is at."""
        ticket.is_cancelled = True
        for hand in self._hands:
            hand.end("cancel", ticket)

    def wait_ready(self, timeout_s: float) -> Mapping[str, Any]:
        """What the first process says of itself when it is ready.

        Raises:
            Refused: it cannot load its model.
            ResourceError: processes die while they start, or take too long.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.about is not None or self.fault is not None, timeout_s)
        if self.fault is not None:
            raise self.fault
        if self.about is None:
            raise ResourceError(f"the model was not loaded in {timeout_s:.0f} seconds")
        return self.about

    def tell(self, about: Mapping[str, Any] | None, fault: Geo4DError | None) -> None:
        """A process is ready, or cannot be."""
        with self._changed:
            self.about, self.fault = about or self.about, fault
            self._changed.notify_all()


class _Hand:
    """One process and its thread."""

    def __init__(self, crew: Crew, setup: Setup) -> None:
        self.crew, self.setup = crew, setup
        self.ticket: Ticket | None = None
        self.thread = threading.Thread(target=self._run, name="geo4d service", daemon=True)
        self._mutex = threading.Lock()  # of what ends a process: no task may be hit that was not meant
        self._process: Any = None
        self._pipe: Any = None
        self._why, self._ended_at = "", 0.0
        self._stage = ""
        self._is_ready = False

    @property
    def is_ready(self) -> bool:
        """Its process has begun its work."""
        return self._is_ready and self._process is not None

    def end(self, why: str, ticket: Ticket | None = None) -> None:
        """End the process, if it is at this task (None: at any or none); its thread hears of it."""
        with self._mutex:
            if ticket is not None and self.ticket is not ticket:
                return
            if not self._why:
                self._why, self._ended_at = why, time.monotonic()
            if self._process is not None:
                self._process.terminate()

    def _run(self) -> None:
        while not self.crew.is_stopping:
            if self._process is None and self.crew.eager and self.crew.fault is None:
                try:
                    self._start()
                except (Refused, ResourceError, Died) as error:
                    self.crew.tell(None, error)
            ticket = self.crew.tickets.get()
            if ticket is None:
                break
            try:
                outcome = self._do(ticket)
            except Geo4DError as error:
                ticket.outcome.set_exception(error)
            else:
                ticket.outcome.set_result(outcome)
        self._close()
        while not self.crew.tickets.empty():
            left = self.crew.tickets.get()
            if left is not None:
                left.outcome.set_exception(Died("the service ends", 1, "stop"))

    def _start(self) -> None:
        """
        Raises:
            Refused, ResourceError, Died: it does not come to be ready.
        """
        reason = ""
        for _ in range(STARTS):
            context = get_context("spawn")
            self._pipe, theirs = context.Pipe()
            process = context.Process(target=self.crew.target, args=(theirs, self.setup), daemon=True)
            process.start()
            theirs.close()
            with self._mutex:
                self._process, self._why = process, ""
            if self.crew.is_stopping:
                self.end("stop")
            try:
                kind, *rest = self._pipe.recv()
            except (EOFError, OSError):
                reason = self._death()[1]
                if self.crew.is_stopping:
                    raise Died("the service ends", 1, "stop") from None
                continue
            if kind == "refused":
                self._close()
                raise Refused(rest[1], rest[0])
            self._is_ready = True
            self.crew.tell(rest[0], None)
            return
        raise ResourceError(
            f"a process of the service died while it started: {reason}; see the messages of the service"
        )

    def _do(self, ticket: Ticket) -> Mapping[str, Any]:
        """
        Raises:
            Died: the process did.
            Refused, ResourceError: there is none.
        """
        ticket.outcome.set_running_or_notify_cancel()
        if ticket.is_cancelled:
            raise Died("cancelled", 1, "cancel")
        if self._process is not None and not self._process.is_alive():
            self._close()
        if self._process is None:
            try:
                self._start()
            except (Refused, ResourceError) as error:
                self.crew.tell(None, error)
                raise
        with self._mutex:
            self.ticket, self._why, self._stage = ticket, "", ""
        try:
            if not ticket.on_start():
                raise Died("cancelled", 1, "cancel")
            note = self._hear(ticket)
        except (EOFError, OSError):
            code, reason = self._death()
            raise self._died(ticket, code, reason) from None
        finally:
            with self._mutex:
                self.ticket = None
        if self._why:  # the end came too late for this task, and must not hit the next one
            self._close()
        return note

    def _hear(self, ticket: Ticket) -> Mapping[str, Any]:
        """
        Raises:
            EOFError, OSError: the process has ended, or must be.
        """
        deadline = time.monotonic() + ticket.limit_s
        self._pipe.send(ticket.task)
        if ticket.is_cancelled or self.crew.is_stopping:  # between the two
            self.end("stop" if self.crew.is_stopping else "cancel")
        while True:
            if not self._pipe.poll(min(max(deadline - time.monotonic(), 0), _LOOK_S)):
                if time.monotonic() >= deadline:
                    self.end("time")
                if self._why and time.monotonic() > self._ended_at + _GRACE_S:
                    raise EOFError
                continue
            kind, *rest = self._pipe.recv()
            if kind == "ended":
                return rest[0]
            if kind == "stage":
                self._stage = f"{rest[0]} ({rest[1]} of {rest[2]})"
            ticket.on_note(kind, *rest)

    def _died(self, ticket: Ticket, code: int, reason: str) -> Died:
        why = self._why or "crash"
        words = {
            "time": f"it took longer than the {ticket.limit_s:.0f} seconds that it may take here",
            "cancel": "cancelled",
            "stop": "the service ends",
        }
        return Died(words.get(why, reason), code, why)

    def _death(self) -> tuple[int, str]:
        """Exit code of the process, which is ended if it is still there, and how it ended."""
        process, self._is_ready = self._process, False
        waited = time.monotonic() - self._ended_at if self._why else 0.0
        process.join(max(_GRACE_S - waited, 0.1))
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode or 0
        self._pipe.close()
        with self._mutex:
            self._process = None
        during = f" during {self._stage}" if self._stage else ""
        if code >= 0:
            return max(code, 1), f"the process of the job ended with exit code {code}{during}"
        name = signal.Signals(-code).name
        guess = " (killed from outside, or out of memory)" if name == "SIGKILL" else ""
        return 128 - code, f"the process of the job was ended by {name}{guess}{during}"

    def _close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._is_ready = False
            self._pipe.close()
            self._process.terminate()
            self._process.join(_GRACE_S)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            with self._mutex:
                self._process = None
