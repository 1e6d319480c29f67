"""The scripts that made the bundled depth network: what they pack, and what they ask of real pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bundled_pictures
    import bundled_train

    yield bundled_pictures, bundled_train
    for name in ("bundled_pictures", "bundled_train", "peer", "vouched", "confidence"):
        sys.modules.pop(name, None)


def test_depth_in_one_byte_comes_back_where_motion_was_sure(scripts) -> None:
    pictures, train = scripts
    disparity = torch.logspace(-1.5, 1.5, 48).reshape(1, 6, 8)
    confidence = torch.where(torch.arange(8) < 5, 0.9, 0.2).expand(1, 6, 8)
    packed = pictures._small({"jpegs": [], "disparity": disparity.half(), "confidence": confidence.half()})
    back, known = train._depth_of(packed["depth"])[0]
    assert torch.equal(known > 0, confidence[0] > 0.5)
    sure = known > 0
    torch.testing.assert_close(back[sure], disparity[0][sure], rtol=0.02, atol=0)


def test_segments_lie_within_their_clip_and_have_its_frames_once(scripts) -> None:
    pictures, _ = scripts
    for num_frames in (1, 5, 16, 17, 40, 100, 160):
        for chosen in pictures.segments(num_frames, 16, 2):
            assert 1 <= len(chosen) <= 16
            assert chosen.min() >= 0
            assert chosen.max() < num_frames
            assert len(np.unique(chosen)) == len(chosen)


def test_motion_teaches_up_to_one_factor_and_only_where_it_is_sure(scripts) -> None:
    _, train = scripts
    generator = torch.Generator().manual_seed(0)
    own = 0.3 + torch.rand(2, 3, 8, 12, generator=generator)
    sure = (torch.arange(12) < 9).float().expand_as(own)
    measured = torch.stack([7.0 * own, sure], 2)
    assert float(train.measured_loss(own, measured)) < 1e-3
    measured[:, :, 0, :, 9:] = 50.0
    assert float(train.measured_loss(own, measured)) < 1e-3
    measured[:, :, 0, :4, :9] *= 2.0
    assert float(train.measured_loss(own, measured)) > 0.1
