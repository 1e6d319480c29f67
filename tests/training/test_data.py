from collections import Counter

import pytest
import torch

from geo4d.training.data import ClipStream, EveryNth, ReplayPlan, first_uses, stack_clips
from geo4d.training.sources import as_float
from geo4d.training.tasks.tiny.batches import StreamedBatches, WindowSampling
from tests.support.batches import take


def test_every_clip_is_shown_exactly_so_often_and_soon_forgotten() -> None:
    plan = ReplayPlan(seed=1, chunk=5, uses=3, first=100)
    samples = take(plan.iter_clips(), 5 + 10 + 15 * 20)
    counts = Counter(samples)
    finished = [clip for clip in counts if clip < max(counts) - 3 * 5]
    assert finished
    assert min(counts) == 100
    assert {counts[clip] for clip in finished} == {3}
    for position, clip in enumerate(samples):
        assert clip >= max(samples[: position + 1]) - 3 * 5


def test_a_plan_can_be_entered_anywhere() -> None:
    plan = ReplayPlan(seed=2, chunk=4, uses=3)
    whole = take(plan.iter_clips(), 200)
    for start in (0, 1, 7, 31, 150):
        assert take(plan.iter_clips(start), 200 - start) == whole[start:]
    assert take(ReplayPlan(seed=3, chunk=4, uses=3).iter_clips(), 200) != whole


def test_first_uses_name_every_needed_clip_once_in_order() -> None:
    plan = ReplayPlan(seed=2, chunk=4, uses=3)
    wanted = list(dict.fromkeys(take(plan.iter_clips(10), 90)))
    assert list(first_uses(plan, 10, lambda sample: True, 90)) == wanted


def test_the_stream_gives_the_planned_clips_and_keeps_few(source) -> None:
    plan = ReplayPlan(seed=5, chunk=3, uses=2)
    stream = ClipStream(source, plan, start=4)
    for (sample, clip), wanted in zip(stream, take(plan.iter_clips(4), 60), strict=False):
        assert sample >= 4
        assert torch.equal(clip.c2w, source(wanted).c2w)
        assert len(stream._cache) <= (plan.uses + 2) * plan.chunk


@pytest.mark.slow
def test_worker_processes_change_nothing(source) -> None:
    plan = ReplayPlan(seed=5, chunk=3, uses=2)
    plain = take(iter(ClipStream(source, plan)), 20)
    worked = take(iter(ClipStream(source, plan, num_workers=2)), 20)
    for (sample, clip), (other_sample, other) in zip(plain, worked, strict=True):
        assert sample == other_sample
        assert torch.equal(clip.rgb, other.rgb)


def test_two_processes_together_see_the_batches_of_one(source) -> None:
    batches = StreamedBatches(source, ReplayPlan(0, 4, 2), WindowSampling(2, (1, 2)), batch=4)
    whole = take(batches(3, 0, 1), 3)
    halves = [take(batches(3, rank, 2), 3) for rank in range(2)]
    for step in range(3):
        for name, value in vars(whole[step]).items():
            joined = torch.cat([getattr(halves[rank][step], name) for rank in range(2)])
            assert torch.equal(joined, value), name
    assert [EveryNth(4, 2, 1)(sample) for sample in range(8)] == [False, False, True, True] * 2


def test_a_resumed_stream_goes_on_with_the_same_batches(source) -> None:
    batches = StreamedBatches(source, ReplayPlan(0, 4, 2), WindowSampling(2, (1, 2)), batch=3)
    whole = take(batches(0, 0, 1), 6)
    for first, second in zip(whole[4:], take(batches(4, 0, 1), 2), strict=True):
        assert torch.equal(first.rgb, second.rgb)
        assert torch.equal(first.samples, second.samples)


def test_batches_split_evenly_or_not_at_all(source) -> None:
    clips = [as_float(source(i)) for i in range(4)]
    batch = stack_clips(clips, [torch.tensor([2, 0])] * 4, [7, 8, 9, 10])
    assert batch.frames.tolist() == [[0, -2]] * 4
    parts = batch.split(2)
    assert torch.equal(torch.cat([part.depth for part in parts]), batch.depth)
    assert parts[1].samples.tolist() == [9, 10]
    with pytest.raises(ValueError, match="3 parts"):
        batch.split(3)
