import torch

from geo4d.tracks.types import Tracks


def tracks() -> Tracks:
    seen = {0: [0, 1, 2, 3], 2: [1], 5: [2, 4], 7: [3, 4]}  # track -> frames; numbers with gaps
    track = torch.tensor([k for k, frames in seen.items() for _ in frames])
    frame = torch.tensor([f for frames in seen.values() for f in frames])
    xy = torch.stack([10.0 * track, 100.0 + frame], 1)
    return Tracks(track, frame, xy, 5, (8, 9), torch.tensor([True, False, False, False, False]))


def test_numbers_may_have_gaps() -> None:
    assert tracks().num_tracks == 8
    empty = Tracks(
        torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 2), 5, (8, 9), torch.zeros(5).bool()
    )
    assert empty.num_tracks == 0
    assert empty.window(0, 5)[0].shape == (5, 0, 2)


def test_a_window_holds_what_is_seen_twice_in_it() -> None:
    xy, visible = tracks().window(2, 5)
    assert visible.T.tolist() == [[True, True, False], [True, False, True], [False, True, True]]  # 0, 5, 7
    assert xy[0, 1].tolist() == [50, 102]
    assert xy[2, 1].tolist() == [50, 104]
    assert xy[1, 2].tolist() == [70, 103]
    assert (xy[~visible] == 0).all()


def test_a_window_counts_within_itself() -> None:
    xy, visible = tracks().window(0, 2)
    assert visible.shape == (2, 1)  # track 0 alone: 2 is seen once
    assert xy[:, 0].tolist() == [[0, 100], [0, 101]]
