import pytest
import torch

from geo4d.geometry.cameras import unproject
from geo4d.geometry.poses import transform
from geo4d.training.data import ReplayPlan, stack_clips
from geo4d.training.sources import as_float
from geo4d.training.tasks.tiny.batches import (
    EvidenceDropout,
    StreamedBatches,
    WindowSampling,
    batch_evidence,
    zoom_clip,
)
from tests.support.batches import take


def test_some_steps_lie_on_their_side_with_everything_in_them(source) -> None:
    plain = StreamedBatches(source, ReplayPlan(0, 4, 2), WindowSampling(2, (1, 2)), batch=4)
    sampling = WindowSampling(2, (1, 2), turned=0.5)
    turned = StreamedBatches(source, ReplayPlan(0, 4, 2), sampling, batch=4)
    turns = [sampling.quarter_turns(step) for step in range(12)]
    assert {0, 1} <= set(turns)
    for step, (upright, batch) in enumerate(
        zip(take(plain(0, 0, 1), 12), take(turned(0, 0, 1), 12), strict=True)
    ):
        assert torch.equal(batch.rgb, upright.rgb.rot90(turns[step], (-2, -1)))
        points = (unproject(b.depth.clamp(max=50), b.intrinsics) for b in (upright, batch))
        worlds = [transform(b.c2w, p) for b, p in zip((upright, batch), points, strict=True)]
        torch.testing.assert_close(worlds[1], worlds[0].rot90(turns[step], (2, 3)), rtol=1e-3, atol=1e-3)
        assert torch.equal(batch.evidence_disparity, upright.evidence_disparity.rot90(turns[step], (-2, -1)))
    assert take(turned(7, 0, 1), 1)[0].rgb.shape == take(turned(0, 0, 1), 8)[7].rgb.shape


def test_hidden_evidence_is_hidden_as_often_as_asked_and_repeats() -> None:
    dropout = EvidenceDropout(everything=0.3, rotation_only=0.2, cameras_only=0.1, depth_only=0.1)
    samples = torch.arange(4000)
    kept = dropout.keep(samples, 1)
    assert torch.equal(kept, dropout.keep(samples, 1))
    share = {}
    for combination in kept.T.int().tolist():
        share[tuple(combination)] = share.get(tuple(combination), 0) + 1 / 4000
    expected = {(0, 0, 0): 0.3, (0, 1, 0): 0.2, (0, 1, 1): 0.1, (1, 0, 0): 0.1, (1, 1, 1): 0.3}
    assert share == pytest.approx(expected, abs=0.03)
    confidence = torch.rand(50, 2, 4, 4)
    thin = dropout.thin(confidence, torch.arange(50), 0)
    assert (thin[confidence > 0.25] == confidence[confidence > 0.25]).all()
    assert (thin[confidence < 0.05] == 0).all()


def test_hidden_parts_are_zero_and_the_rest_is_untouched(source) -> None:
    clips = [as_float(source(i)) for i in range(3)]
    batch = stack_clips(clips, [torch.arange(4)] * 3, [0, 1, 2])
    whole = batch_evidence(batch, EvidenceDropout(0, 0, 0, 0, (0.0, 0.0)))
    assert whole.depth[:, :, 2].max() > 0
    nothing = batch_evidence(batch, EvidenceDropout(1, 0, 0, 0))
    assert nothing.depth.abs().max() == 0
    assert nothing.cameras.abs().max() == 0
    rotation = batch_evidence(batch, EvidenceDropout(0, 1, 0, 0))
    assert rotation.depth.abs().max() == 0
    assert rotation.cameras[:, :, 3:6].abs().max() == 0
    assert torch.equal(rotation.cameras[:, :, :3], whole.cameras[:, :, :3])


def test_a_zoomed_pixel_shows_what_the_camera_sees_in_its_direction(source) -> None:
    clip, factors = source(3), torch.tensor([1.0, 1.1, 2.0, 2.7])
    zoomed = zoom_clip(clip, factors)
    assert torch.equal(zoomed.rgb[0], clip.rgb[0])
    assert torch.equal(zoomed.depth[0], clip.depth[0])
    height, width = clip.depth.shape[1:]
    for t, row, column in ((1, 7, 40), (2, 0, 0), (2, 31, 20), (3, 13, 9)):
        factor = float(factors[t])
        x = width / 2 + (column + 0.5 - width / 2) / factor
        y = height / 2 + (row + 0.5 - height / 2) / factor
        assert zoomed.depth[t, row, column] == clip.depth[t, int(y), int(x)]
        ours = torch.linalg.solve(zoomed.intrinsics[t], torch.tensor([column + 0.5, row + 0.5, 1.0]))
        theirs = torch.linalg.solve(clip.intrinsics[t], torch.tensor([x, y, 1.0]))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.isinf(zoomed.depth[1]).any()  # the sky stays sky


def test_windows_zoom_by_their_number_and_no_more_than_asked(source) -> None:
    plain, sampling = WindowSampling(3, (1,), colours=False), WindowSampling(3, (1,), colours=False, zoom=2.0)
    factors = []
    for sample in range(30):
        clip, frames = sampling.window(source(0), sample)
        before, same = plain.window(source(0), sample)
        assert torch.equal(frames, same)
        factors.append((clip.intrinsics[frames, 0, 0] / before.intrinsics[frames, 0, 0]).tolist())
        assert torch.equal(clip.depth, sampling.window(source(0), sample)[0].depth)
    found = torch.tensor(factors)
    assert found.min() >= 1 - 1e-5
    assert found.max() <= 2 + 1e-5
    assert found.max() > 1.7
    torch.testing.assert_close(found[:, 1] ** 2, found[:, 0] * found[:, 2], rtol=1e-4, atol=1e-5)
    assert (found[:, 0] - found[:, 2]).abs().max() > 0.5
