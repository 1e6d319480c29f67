"""Which frames of a shot are solved first, and what is seen in them.

Axis names: F frames of the shot, N keyframes, P points, O observations.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.problem import ShotProblem, by_frame
from geo4d.cameras.rotations import bearing, fit_rotation


@dataclass(frozen=True)
class KeyframeView:
    """What some frames of a shot see: cameras are numbered in the order of the keyframes.

    Attributes:
        keyframes: frames of the shot, increasing.
        observations: of points seen often enough.
        track_of_point: the track that each point comes from.
    """

    keyframes: Int[Tensor, " N"]
    observations: Observations
    track_of_point: Int[Tensor, " P"]

    @property
    def num_cameras(self) -> int:
        """Number of keyframes."""
        return len(self.keyframes)

    @property
    def num_points(self) -> int:
        """Number of points of ``observations``; a track that was split counts once for each piece."""
        return len(self.track_of_point)


def choose_keyframes(problem: ShotProblem) -> Int[Tensor, " N"]:
    """Frames between which the picture moves by about ``keyframe_motion``; less where the whole shot moves less."""
    frames = by_frame(problem)
    num_frames = problem.num_frames
    motion = problem.config.keyframe_motion * math.hypot(*problem.size)
    wanted = min(problem.config.window // 2, num_frames)
    chosen = _walk(frames, motion, problem.config.min_points)
    while len(chosen) < wanted and motion > 0.5 * problem.pixel_error:
        motion *= 0.5
        chosen = _walk(frames, motion, problem.config.min_points)
    if len(chosen) < min(4, num_frames):
        chosen = torch.linspace(0, num_frames - 1, min(4, num_frames)).round().long().unique().tolist()
    return torch.tensor(chosen)


def _walk(frames: list[tuple[Tensor, Tensor]], motion: float, min_points: int) -> list[int]:
    """Frames each about ``motion`` pixels (median) after the one before, and where too few points are shared."""
    chosen = [0]
    for f in range(1, len(frames)):
        last_ids, last_uv = frames[chosen[-1]]
        ids, uv = frames[f]
        if len(ids) == 0:
            continue
        at = torch.searchsorted(last_ids, ids).clamp_max(max(len(last_ids) - 1, 0))
        same = last_ids[at] == ids if len(last_ids) else torch.zeros(len(ids), dtype=torch.bool)
        count = int(same.sum())
        moved = float((uv[same] - last_uv[at[same]]).norm(dim=1).median()) if count else math.inf
        few = count < 0.5 * min(len(last_ids), len(ids)) or count < 2 * min_points
        if moved > motion or few:
            # When too little is shared, the frame before is the better bridge.
            if few and f - 1 > chosen[-1] and len(frames[f - 1][0]):
                chosen.append(f - 1)
            if f != chosen[-1] and not (few and count >= min_points and moved < 0.3 * motion):
                chosen.append(f)
    last = max((f for f in range(len(frames)) if len(frames[f][0])), default=0)
    if chosen[-1] != last:
        chosen.append(last)
    return chosen


def denser_frames(keyframes: Int[Tensor, " N"], most: int) -> Int[Tensor, " M"]:
    """The keyframes and, evenly between them, so many frames that at most ``most`` come for each keyframe."""
    parts = [keyframes[-1:]]
    for low, high in itertools.pairwise(keyframes.tolist()):
        count = min(most, high - low)
        parts.append(low + torch.arange(count) * (high - low) // count)
    return torch.cat(parts).sort().values


def view_of(
    problem: ShotProblem,
    keyframes: Int[Tensor, " N"],
    *,
    log_depth: Float[Tensor, " O"] | None = None,
    span: int,
    least: int = 2,
) -> KeyframeView:
    """Observations in keyframes: points seen at least so often, tracks longer than ``span`` keyframes split.

    Args:
        log_depth: measured at every observation of the problem, or None.
    """
    N = len(keyframes)
    number = torch.full((problem.num_frames,), -1, dtype=torch.long)
    number[keyframes] = torch.arange(N)
    camera = number[problem.frame]
    rows = (camera >= 0).nonzero()[:, 0]
    camera, track = camera[rows], problem.track[rows]
    ids, dense = track.unique(return_inverse=True)
    first = torch.full((len(ids),), N, dtype=torch.long).scatter_reduce(0, dense, camera, "amin")
    piece = (camera - first[dense]).div(span, rounding_mode="floor")
    key = dense * (N + 1) + piece
    pieces, point = key.unique(return_inverse=True)
    often = torch.bincount(point, minlength=len(pieces)) >= least
    keep = often[point]
    renumber = torch.cumsum(often, 0) - 1
    observations = Observations(
        camera[keep],
        renumber[point[keep]],
        problem.uv[rows][keep],
        torch.ones(int(keep.sum()), dtype=torch.float64),
        None if log_depth is None else log_depth[rows][keep],
    )
    return KeyframeView(keyframes, observations, ids[pieces[often].div(N + 1, rounding_mode="floor")])


def restricted(
    view: KeyframeView, begin: int, end: int, min_points: int
) -> tuple[Observations, Int[Tensor, " M"]]:
    """Observations of keyframes [begin, end) numbered from 0, of points seen at least twice there, and which points."""
    obs = view.observations
    inside = (obs.camera >= begin) & (obs.camera < end)
    count = torch.bincount(obs.point[inside], minlength=view.num_points)
    need = 3 if end - begin > 3 else 2
    chosen = (count >= need).nonzero()[:, 0]
    if len(chosen) < 4 * min_points:
        chosen = (count >= 2).nonzero()[:, 0]
    member = torch.zeros(view.num_points, dtype=torch.bool)
    member[chosen] = True
    rows = inside & member[obs.point]
    renumber = torch.cumsum(member, 0) - 1
    sub = obs.select(rows, renumber[obs.point[rows]])
    return replace(sub, camera=sub.camera - begin), chosen


def best_window(problem: ShotProblem, view: KeyframeView, length: int) -> tuple[int, int]:
    """The run of keyframes with the most motion that no rotation explains, times the root of its number of points."""
    N = view.num_cameras
    if length >= N:
        return 0, N
    focal = float(problem.known_focal.median()) if problem.known_focal is not None else problem.prior[0]
    begins = torch.linspace(0, N - length, min(6, N - length + 1)).round().long().unique().tolist()
    best, score = begins[0], -1.0
    for begin in begins:
        total = 0.0
        for step in (length // 2, length - 1):
            _, uv_a, uv_b = shared_points(view.observations, begin, begin + step)
            if len(uv_a) < problem.config.min_points:
                continue
            a, b = bearing(uv_a, focal), bearing(uv_b, focal)
            left = (b - a @ fit_rotation(a, b, 6).T).norm(dim=1).median()
            total += math.sqrt(len(uv_a)) * float(left)
        if total > score:
            best, score = begin, total
    return best, best + length
