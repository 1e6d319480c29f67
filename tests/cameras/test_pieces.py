"""A shot that nothing explains as a whole is cut where its tracks hardly hold together."""

import torch

from geo4d.cameras.frames import ShotSolution, unknown_shot
from geo4d.cameras.pieces import LEAST_FRAMES, MOST_CUTS, NOT_EXPLAINED, shared_tracks, solve_in_pieces
from geo4d.cameras.problem import shot_problem
from geo4d.cameras.types import CameraSolveConfig, ShotMotion
from geo4d.tracks.types import Tracks

SIZE = (60, 80)


def tracks_of(lengths: list[tuple[int, int, int]], num_frames: int) -> Tracks:
    """Args:
    lengths: (first frame, last frame, how many tracks) of groups.
    """
    track, frame = [], []
    for first, last, count in lengths:
        for _ in range(count):
            number = track[-1] + 1 if track else 0
            track += [number] * (last - first + 1)
            frame += range(first, last + 1)
    starts = torch.zeros(num_frames, dtype=torch.bool)
    starts[0] = True
    return Tracks(
        torch.tensor(track), torch.tensor(frame), torch.rand(len(track), 2) * 60, num_frames, SIZE, starts
    )


def solver(tracks: Tracks, good: range, seen: list[tuple[int, int]]):
    """A solver that explains what lies within ``good``, and nothing else."""

    def solve(start: int, stop: int) -> ShotSolution:
        seen.append((start, stop))
        empty = unknown_shot(
            shot_problem(tracks, start, stop, None, None, CameraSolveConfig()), NOT_EXPLAINED
        )
        if good.start <= start and stop <= good.stop:
            motion = ShotMotion(start, stop, "parallax", 70.0, 0.01, 9.0, 0.0, 50, 0.2, "parallax")
            return ShotSolution(
                motion, empty.w2c, empty.focal, torch.ones(stop - start), empty.points, empty.depth_range
            )
        return empty

    return solve


def test_links_are_the_tracks_seen_in_both_frames() -> None:
    tracks = tracks_of([(0, 3, 5), (2, 5, 2)], 6)
    assert shared_tracks(tracks).tolist() == [5, 5, 7, 2, 2]


def test_a_nearly_lost_tail_does_not_cost_the_rest() -> None:
    tracks = tracks_of([(0, 19, 60), (19, 20, 9), (20, 23, 30)], 24)
    seen: list[tuple[int, int]] = []
    found = solve_in_pieces(tracks, 0, 24, solver(tracks, range(0, 20), seen))
    assert [(s.motion.start, s.motion.stop, s.motion.kind) for s in found] == [
        (0, 20, "parallax"),
        (20, 24, "unknown"),
    ]
    assert sum(len(s.w2c) for s in found) == 24


def test_both_ends_can_be_cut_off() -> None:
    tracks = tracks_of([(0, 4, 30), (4, 5, 5), (5, 20, 60), (20, 21, 6), (21, 25, 30)], 26)
    found = solve_in_pieces(tracks, 0, 26, solver(tracks, range(5, 21), []))
    assert [(s.motion.start, s.motion.stop) for s in found] == [(0, 5), (5, 21), (21, 26)]
    assert [s.motion.kind for s in found] == ["unknown", "parallax", "unknown"]


def test_a_shot_that_is_explained_is_solved_once() -> None:
    tracks = tracks_of([(0, 9, 40)], 10)
    seen: list[tuple[int, int]] = []
    assert len(solve_in_pieces(tracks, 0, 10, solver(tracks, range(0, 10), seen))) == 1
    assert seen == [(0, 10)]


def test_footage_that_nothing_explains_is_given_up_after_a_few_cuts() -> None:
    tracks = tracks_of([(t, t + 1, 20 + t % 7) for t in range(59)], 60)
    seen: list[tuple[int, int]] = []
    found = solve_in_pieces(tracks, 0, 60, solver(tracks, range(0, 0), seen))
    assert len(found) == 1
    assert found[0].motion.kind == "unknown"
    assert len(seen) <= 1 + MOST_CUTS


def test_short_pieces_are_not_worth_it() -> None:
    tracks = tracks_of([(0, LEAST_FRAMES - 2, 20)], LEAST_FRAMES - 1)
    seen: list[tuple[int, int]] = []
    solve_in_pieces(tracks, 0, LEAST_FRAMES - 1, solver(tracks, range(0, 0), seen))
    assert len(seen) == 1
