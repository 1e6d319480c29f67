"""Numerical threads of small problems."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

import torch

Given = TypeVar("Given")
Found = TypeVar("Found")

_spared: ContextVar[int] = ContextVar("spared", default=1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside: the arrays of the solvers are so small that more threads only wait for each other.

    What is independent may share the others (``side_by_side``).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    token = _spared.set(max(before, _spared.get()))
    try:
        yield
    finally:
        _spared.reset(token)
        torch.set_num_threads(before)


def spared_threads() -> int:
    """How many threads ``side_by_side`` shares work among, the calling one included."""
    return _spared.get()


def side_by_side(work: Callable[[Given], Found], given: Iterable[Given]) -> list[Found]:
    """``work`` of each, in their order, shared by the threads that ``one_thread`` around it has spared.

    Each is worked on by one thread, so the numbers are those of one after the other.
    """
    pieces = list(given)
    workers = min(spared_threads(), len(pieces))
    if workers < 2:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(workers, "side by side") as pool:
        return list(pool.map(work, pieces))
