import threading

import pytest
import torch

from geo4d.optimise.threads import one_thread, side_by_side, spared_threads


def test_one_thread_inside_and_as_before_afterwards_whatever_happens():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="inside"), one_thread():
            raise ValueError("inside")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_is_independent_shares_the_threads_that_were_spared():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # Two pieces that wait for each other end only when both are worked on at once.
        meeting = threading.Barrier(2, timeout=30)
        with one_thread():
            assert spared_threads() == 2
            with one_thread():
                assert spared_threads() == 2
            found = side_by_side(lambda k: (k, torch.get_num_threads(), meeting.wait())[:2], [0, 1])
        assert found == [(0, 1), (1, 1)]
        assert spared_threads() == 1
        assert side_by_side(lambda k: (k, threading.current_thread()), [3, 4]) == [
            (k, threading.current_thread()) for k in (3, 4)
        ]
    finally:
        torch.set_num_threads(before)
