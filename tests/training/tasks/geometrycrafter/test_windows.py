import itertools

import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import unproject
from geo4d.training.tasks.geometrycrafter.clips import back_and_forth
from geo4d.training.tasks.geometrycrafter.windows import WindowBatches, WindowCut, cut_window

CUT = WindowCut((64, 64), (1, 3), zoom=1.5, seed=3)


def test_steps_have_one_length_and_resume_exactly(order) -> None:
    batches = WindowBatches(order(True), CUT, 2)
    whole = list(itertools.islice(batches(0, 0, 1), 8))
    assert {batch.num_frames for batch in whole} == {1, 2, 3}
    for batch in whole:
        assert batch.rgb.shape == (2, batch.num_frames, 3, 64, 64)
        assert batch.prior_depth.shape == batch.depth.shape
    for kept, again in zip(whole[5:], batches(5, 0, 1), strict=False):
        assert kept.names == again.names
        assert torch.equal(kept.rgb, again.rgb)
        assert torch.equal(kept.prior_depth.nan_to_num(-1), again.prior_depth.nan_to_num(-1))
    halves = [next(batches(4, rank, 2)) for rank in (0, 1)]
    assert halves[0].names + halves[1].names == whole[4].names
    assert torch.equal(torch.cat([half.rgb for half in halves]), whole[4].rgb)
    assert [part.names for part in whole[4].split(2)] == [(name,) for name in whole[4].names]
    assert whole[4].names[0] in whole[4].describe()


def test_resizing_moves_the_focal_length_with_the_picture(wall) -> None:
    clip = wall(1)
    for zoom in (1.0, 1.5):
        window = cut_window(clip, None, np.arange(2), (64, 64), zoom, 0)
        # (64, 96) covers (64, 64) as it is; zoomed in it is 96 x 144, of which the middle stays.
        assert window.intrinsics[0, 0, 0, 0] == pytest.approx(80 * zoom, rel=0.01)
        assert window.intrinsics[0, 0, 0, 2] == pytest.approx(32, abs=0.5)
        points = unproject(window.depth[0], window.intrinsics[0])
        # The same wall: depth at the middle does not change, and neither does the world's position of it.
        middle = float(clip.depth[0, 32, 48])
        assert float(points[0, 32, 32, 2]) == pytest.approx(middle, rel=0.02)


def test_a_short_clip_is_played_back_and_forth() -> None:
    assert back_and_forth(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert back_and_forth(1, 3).tolist() == [0, 0, 0]
