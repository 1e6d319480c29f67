"""The errors that geo4d raises on purpose. Every message says what was expected, what came, and what to do.

``ValueError`` is kept for wrong arguments to a function. The classes here are for faults of the world around the
program (files, checkpoints, devices); the command line turns each into one line and a documented exit code.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Geo4DError(Exception):
    """Base of all expected failures; ``exit_code`` is what the command line returns."""

    exit_code = 1


class InputError(Geo4DError):
    """The input video, folder or data set is missing, damaged, or not what it claims to be."""

    exit_code = 3


class OutputError(Geo4DError):
    """The result cannot be written or read: exists already, locked, no space, no permission, incomplete."""

    exit_code = 4


class OutputInUse(OutputError):
    """Another run is writing the result at this moment."""


class OtherSettings(OutputError):
    """An unfinished run was begun with other settings, or on another source, so that it cannot be gone on with."""


class DiskFull(OutputError):
    """The disk, a quota or a limit on the size of files has no room for what must be written."""


class WorkSpaceFull(DiskFull):
    """The place of the work files has no room for them; says where it is and how many bytes they need."""


class CheckpointError(Geo4DError):
    """A weight file is missing, foreign, incomplete or unsafe."""

    exit_code = 5


class MissingExtraError(Geo4DError):
    """An optional dependency is not installed."""

    exit_code = 6

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}'; install it with: pip install 'geo4d[{extra}]'"
        )


class PluginError(Geo4DError):
    """Code of another package, which an entry point names, cannot be used."""

    exit_code = 6


class ResourceError(Geo4DError):
    """Out of memory or another resource, after smaller settings were tried."""

    exit_code = 7


class GeometryError(Geo4DError):
    """No usable geometry came out (all windows bad, nothing valid), and going on would hide that."""

    exit_code = 8


class DoubtfulResult(Geo4DError):
    """A result was written, but part of it cannot be trusted (``geo4d.results.verdict``)."""

    exit_code = 9


class TrainingError(Geo4DError):
    """Training cannot go on: the loss of a batch is not finite."""

    exit_code = 10


class BatchError(Geo4DError):
    """Clips of a batch failed, or its workers cannot start.

    Args:
        message: what failed.
        exit_code: that of the failure if all failed alike; otherwise that some clips failed.
    """

    exit_code = 11

    def __init__(self, message: str, exit_code: int = 11) -> None:
        super().__init__(message)
        self.exit_code = exit_code


USAGE_ERROR, BUG = 2, 70
"""Exit codes of failures that are no ``Geo4DError``: wrong usage, and a fault of the program."""


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one line for the failure of a command or of one clip."""
    if isinstance(error, Geo4DError):
        return error.exit_code, str(error)
    if is_out_of_memory(error):
        return ResourceError.exit_code, (
            "out of memory; use a smaller --max-size or model, or close other programs"
        )
    if isinstance(error, OSError) and error.errno is not None:
        # The system refused what the user asked for, such as a place or a port: no fault of the program.
        place = "" if error.filename is None else f" {str(error.filename)[:300]}"
        return OutputError.exit_code, f"cannot use{place or ' a file or port'}: {error.strerror}"
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):  # that one is no wrong usage
        return USAGE_ERROR, str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "geo4d":
        return MissingExtraError.exit_code, (
            f"geo4d needs the module {error.name}, which is not installed: run 'geo4d doctor' to see what is missing"
        )
    name = type(error).__name__
    return BUG, f"this is a bug: {name}: {error}; repeat with --debug for the traceback and report it"


_NO_MEMORY = (
    "out of memory",
    "cannot allocate memory",
    "can't allocate memory",
    "could not allocate memory",
    "not enough memory",
    "insufficient memory",
    "unable to allocate",
    "can't start new thread",  # its stack finds no room
    "std::bad_alloc",
    "failed to map segment from shared object",  # a library that is loaded when it is needed
    "cublas_status_alloc_failed",
    "could not create a primitive",  # oneDNN, which keeps the reason to itself
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that memory ran out, on the accelerator or the host."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        text = str(cause).lower()
        if any(words in text for words in _NO_MEMORY):
            return True
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


@contextmanager
def memory_errors(doing: str, advice: str) -> Iterator[None]:
    """Where memory runs out inside, say at what, and what takes less.

    Args:
        doing: as in "out of memory while aligning windows".
        advice: what the user can do.
    Raises:
        ResourceError: in place of whatever said that memory ran out.
    """
    try:
        yield
    except ResourceError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(f"out of memory while {doing}; {advice}") from error


def leave(code: int) -> NoReturn:
    """End the process, when all is written, as the interpreter would, but for taking itself apart.

    That takes half a second once torch is loaded, and frees what the system frees at once. In one process of several it
    is not safe either: threads of torch's process group may still let go of tensors then, which ends one process in a
    dozen with SIGABRT under load, and torchrun calls the run failed; what they registered for the end is left out, too.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        logging.shutdown()
    else:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            pass  # whoever read it has seen enough
        except OSError:
            code = code or OutputError.exit_code
    os._exit(code)
