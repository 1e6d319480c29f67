"""The command ``geo4d``: finds the command's module, parses its options, turns errors into one line and an exit code.

Exit codes: 0 done; 1 another expected failure; 2 wrong usage; 3 input; 4 output; 5 weights; 6 a missing optional package
or a broken plug-in; 7 memory; 8 no usable geometry; 9 a doubtful result; 10 a training loss that is not finite; 11 clips
of a batch failed; 70 a bug; 129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM. They belong to the classes of
``geo4d.errors``.
"""

import inspect
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType, TracebackType
from typing import NoReturn, get_type_hints

from geo4d import __version__, errors
from geo4d.errors import USAGE_ERROR

COMMANDS: dict[str, str] = {
    "reconstruct": "video in, 4D geometry out",
    "batch": "many videos in, a result for each, and a table",
    "export": "a result as files of other tools",
    "view": "a result in the browser",
    "serve": "reconstruction over HTTP: a page and an API",
    "report": "a result as one HTML page",
    "pose": "new cameras for a result",
    "evaluate": "score a model or predictions on a benchmark",
    "models": "list, fetch, convert and check weights",
    "train": "train one stage of a model",
    "data": "make training data",
    "doctor": "what this machine has and lacks",
}
"""Name -> one line. The module of a command is ``geo4d.apps.commands.NAME``: a dataclass of options and ``run``."""

LOCAL = ("reconstruct", "pose", "export", "report", "evaluate")
"""Commands none of whose options takes an address of the web."""

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None takes those of the process.
    Returns:
        the exit code.
    """
    # Before torch is loaded: threads that wait must sleep. By default they spin, and on a machine that does anything else
    # at the same time two spinning threads take ten times as long as one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # Names of files need not be text of any encoding; a line that shows one must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s" if debug else "%(levelname)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    if debug:
        for library in ("asyncio", "numcodecs", "numba", "PIL", "matplotlib"):
            logging.getLogger(library).setLevel(logging.INFO)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else USAGE_ERROR
    if words[0] in ("-V", "--version"):
        print(f"geo4d {__version__}")
        return 0
    if words[0] not in COMMANDS:
        return _fail(f"unknown command {words[0]!r}; expected one of {', '.join(COMMANDS)}", USAGE_ERROR)
    with _OneLineErrors(debug) as outcome, _signals_interrupt():
        outcome.code = _run(words[0], words[1:])
    return outcome.code


def command() -> NoReturn:
    """The program ``geo4d``: runs one command, and ends the process with its exit code."""
    errors.leave(main())


class Ended(KeyboardInterrupt):
    """A signal asked the process to end; everything is tidied up as after an interruption from the keyboard."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise ``Ended``; a signal that the process was started to ignore stays ignored."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    try:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in numbers:
                if signal.getsignal(number) is signal.SIG_DFL:
                    before[number] = signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _OneLineErrors:
    """Turns whatever ends a command into one line on stderr and an exit code; nothing passes."""

    def __init__(self, debug: bool) -> None:
        self.code = 0
        self._debug = debug

    def __enter__(self) -> "_OneLineErrors":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            return True
        if isinstance(error, SystemExit):  # tyro after --help, or after a wrong option
            self.code = error.code if isinstance(error.code, int) else USAGE_ERROR
            return True
        if self._debug:
            traceback.print_exception(error)
        self.code, message = explain(error)
        if message:
            _fail(message, self.code)
        return True


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one line for an error."""
    error = _interruption(error) or error
    if isinstance(error, Ended):
        return error.exit_code, f"ended by {error}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, BrokenPipeError):
        return 0, ""
    return errors.explain(error)


def _interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The interruption that something was tidied up after when this error came, if any: libraries stumble over it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def overview() -> str:
    """What ``geo4d --help`` prints."""
    lines = [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"geo4d {__version__}: monocular video in, 4D geometry out",
            "",
            "usage: geo4d COMMAND [OPTIONS] [--debug]",
            "",
            *lines,
            "",
            "geo4d COMMAND --help describes a command; --debug shows tracebacks.",
            "start with: geo4d reconstruct VIDEO -o OUT",
        ]
    )


def _run(name: str, words: Sequence[str]) -> int:
    import tyro

    from geo4d.apps.options import CONFIG, declared, help_text, readable

    module = import_module(f"geo4d.apps.commands.{name}")
    options_type = get_type_hints(module.run, include_extras=True)["options"]
    if name in LOCAL:
        refuse_addresses(name, words)
    about = module.describe() if hasattr(module, "describe") else inspect.getdoc(options_type)
    try:
        options: object = tyro.cli(
            readable(options_type),
            prog=f"geo4d {name}",
            args=list(words),
            description=help_text(about or "", module.EXAMPLES),
            config=CONFIG,
        )
    except SystemExit as end:
        if end.code and name == "reconstruct" and len(several := places_in_a_row(words)) > 1:
            print(f"{name} takes one video, got {len(several)}; for many: geo4d batch", *several[:2],
                  *(["..."] if len(several) > 2 else []), "-o FOLDER", file=sys.stderr)  # fmt: skip
        raise
    return module.run(declared(options))


def places_in_a_row(words: Sequence[str]) -> list[str]:
    """Files and folders that stand one after the other, as a shell leaves them in place of ``*.mp4``.

    The one after an option is its value.
    """
    longest: list[str] = []
    row: list[str] = []
    before = ""
    for word in words:
        is_place = not before.startswith("-") and not word.startswith("-") and os.path.exists(word)
        row = [*row, word] if is_place else []
        longest = max(longest, row, key=len)
        before = word
    return longest


def refuse_addresses(name: str, words: Sequence[str]) -> None:
    """
    Raises:
        InputError: an address of the web stands where a command takes files and folders.
    """
    for word in words:
        if re.match(r"(https?|ftps?|rtsp|rtmp)://", word, re.IGNORECASE):
            raise errors.InputError(
                f"geo4d {name} takes files and folders, got the address {word}: download it first (curl -LO, or yt-dlp "
                "for pages with a video)"
            )


def _fail(message: str, code: int) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code
