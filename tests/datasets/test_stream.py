import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from torch.utils.data import DataLoader

from geo4d.datasets.stream import PackedStream
from geo4d.errors import InputError
from tests.support.packed import pack


def test_an_epoch_of_all_consumers_is_every_clip_once(tmp_path):
    packed = pack(tmp_path, {"streets": 24}, frames=1, c2w=None)
    seen, shards = Counter(), []
    for rank in range(2):
        for worker in range(3):
            stream = PackedStream(packed, seed=4, rank=rank, processes=2, workers=3)
            numbers = list(islice(stream.numbers(worker), 4))  # 12 shards of 2 clips: 2 shards each
            seen.update(numbers)
            shards.append({number // 2 for number in numbers})
    assert seen == Counter(range(24))
    assert sum(len(part) for part in shards) == 12  # no shard is read by two


def test_order_depends_on_seed_and_epoch(tmp_path):
    packed = pack(tmp_path, {"streets": 12}, frames=1, c2w=None)
    first, other = (list(islice(PackedStream(packed, seed=s).numbers(), 24)) for s in (0, 1))
    assert sorted(first[:12]) == sorted(first[12:]) == list(range(12))
    assert first[:12] != first[12:]
    assert first != other


def test_sources_are_drawn_by_ratio_or_by_frames(tmp_path):
    packed = pack(
        tmp_path / "a", {"streets": 6, "rooms": 6}, ratios={"streets": 1.0, "rooms": 3.0}, frames=1, c2w=None
    )
    drawn = list(islice(PackedStream(packed, seed=2).numbers(), 4000))
    assert np.mean([number >= 6 for number in drawn]) == pytest.approx(0.75, abs=0.03)
    packed = pack(tmp_path / "b", {"streets": 8, "rooms": 2}, frames=1, c2w=None)
    drawn = list(islice(PackedStream(packed, seed=2).numbers(), 4000))
    assert np.mean([number >= 8 for number in drawn]) == pytest.approx(0.2, abs=0.03)
    assert {n >= 8 for n in islice(PackedStream(packed, kind="still").numbers(), 50)} == {True}
    assert {n >= 8 for n in islice(PackedStream(packed, kind="video").numbers(), 50)} == {False}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_exactly_where_it_stopped(workers, tmp_path):
    packed = pack(tmp_path, {"streets": 10, "rooms": 6}, frames=1, c2w=None)
    share = {"rank": 0 if workers else 1, "processes": 1 if workers else 2}
    stream = PackedStream(packed, seed=9, workers=workers, mix=2, **share)

    def numbers(part, count):
        return [number for number, _ in islice(DataLoader(part, batch_size=None, num_workers=workers), count)]

    whole = numbers(stream, 22)
    position = json.loads(json.dumps(stream.position(8)))
    assert numbers(stream.resumed(position), 14) == whole[8:]
    with pytest.raises(InputError, match="seed"):
        PackedStream(packed, seed=8, workers=workers, mix=2, **share).resumed(position)
    with pytest.raises(InputError, match="processes"):
        PackedStream(packed, seed=9, workers=workers, mix=2, processes=3).resumed(position)
    if workers:
        with pytest.raises(InputError, match="multiple"):
            stream.resumed({**position, "samples": 7})


def test_streams_that_cannot_be_shared_are_refused(tmp_path):
    packed = pack(tmp_path, {"streets": 4}, frames=1, c2w=None)
    with pytest.raises(InputError, match="at least 4 shards"):
        PackedStream(packed, processes=2, workers=2)
    with pytest.raises(InputError, match="still"):
        PackedStream(packed, kind="still")
    with pytest.raises(ValueError, match="rank"):
        PackedStream(packed, rank=1)
    with pytest.raises(ValueError, match="2 workers"):
        next(iter(PackedStream(packed, workers=2)))
