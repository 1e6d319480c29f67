"""A shot that no camera explains, cut where its tracks hardly hold together.

A few frames that are nearly lost (a bare wall, a blur) can spoil the cameras of all the others. The longest piece between
such places is solved again on its own; what was cut off keeps no camera.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from geo4d.cameras.frames import ShotSolution
from geo4d.tracks.types import Tracks

LEAST_FRAMES = 6
"""Frames of a piece that is worth solving."""
MOST_CUTS = 3
"""Cuts of one shot; footage that nothing explains is not tried for ever."""
NOT_EXPLAINED = "no camera explains its tracks"


def solve_in_pieces(
    tracks: Tracks, start: int, stop: int, solve: Callable[[int, int], ShotSolution]
) -> list[ShotSolution]:
    """Solutions of the frames [start, stop) in order: one, or those of its pieces where only that finds a camera.

    Args:
        solve: frames [start, stop) -> their solution.
    """
    whole = solve(start, stop)
    if not unexplained(whole):
        return [whole]
    links = shared_tracks(tracks)[start : stop - 1]
    begin, end, cuts = start, stop, 0
    while cuts < MOST_CUTS:
        inner = links[begin - start : end - start - 1]
        if len(inner) < LEAST_FRAMES:
            break
        cut = begin + int(inner.argmin()) + 1
        begin, end = (begin, cut) if cut - begin >= end - cut else (cut, end)
        cuts += 1
        if end - begin < LEAST_FRAMES:
            break
        piece = solve(begin, end)
        if not unexplained(piece):
            rest = [(a, b) for a, b in ((start, begin), (end, stop)) if a < b]
            return sorted([piece, *(solve(a, b) for a, b in rest)], key=lambda s: s.motion.start)
    return [whole]


def unexplained(solution: ShotSolution) -> bool:
    """Whether there were tracks, but no camera that fits them."""
    return solution.motion.kind == "unknown" and NOT_EXPLAINED in solution.motion.statement


def shared_tracks(tracks: Tracks) -> Int[Tensor, " t"]:
    """How many tracks each frame shares with the next one."""
    follows = (tracks.track[1:] == tracks.track[:-1]) & (tracks.frame[1:] == tracks.frame[:-1] + 1)
    return torch.bincount(tracks.frame[:-1][follows], minlength=tracks.num_frames)[: tracks.num_frames - 1]
