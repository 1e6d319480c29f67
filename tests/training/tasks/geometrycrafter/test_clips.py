import itertools
from pathlib import Path

import pytest

from geo4d.datasets.shards import ShardWriter
from geo4d.errors import InputError
from geo4d.training.data import ReplayPlan
from geo4d.training.sources import SyntheticSource
from geo4d.training.tasks.geometrycrafter import clips
from geo4d.training.tasks.geometrycrafter.clips import GeneratedOrder, PackedOrder, clips_identity, has_kind
from geo4d.training.tasks.geometrycrafter.priors import StandInPrior, StoredPriors


@pytest.fixture
def packed(wall, tmp_path: Path) -> Path:
    """Five walls as a video set, two as single pictures."""
    writer = ShardWriter(tmp_path / "shards", per_shard=2, rgb="png")
    writer.write_source("walls", iter([wall(number) for number in range(5)]))
    writer.write_source("pictures", iter([wall(number, 1) for number in (20, 21)]), still=True)
    writer.close()
    return tmp_path / "shards"


def taken(order, first_step: int, count: int, rank: int = 0, processes: int = 1) -> list[tuple[int, str]]:
    found = itertools.islice(order(first_step, 2, rank, processes), count)
    return [(sample, clip.name) for sample, clip, _ in found]


def test_packed_clips_go_on_exactly_and_pictures_stay_out_of_video(packed: Path) -> None:
    order = PackedOrder(str(packed), "video", seed=1)
    whole = taken(order, 0, 12)
    assert [sample for sample, _ in whole] == list(range(12))
    assert taken(order, 3, 6) == whole[6:]
    assert {name for _, name in whole} == {f"wall-{number}" for number in range(5)}
    everything = {name for _, name in taken(PackedOrder(str(packed), "all", seed=1), 0, 60)}
    assert {"wall-20", "wall-21"} < everything
    assert has_kind(packed, "still")


def test_two_processes_share_the_sample_numbers_of_a_step(packed: Path) -> None:
    order = PackedOrder(str(packed), "video", seed=1)
    numbers = [sample for rank in (0, 1) for sample, _ in taken(order, 0, 4, rank, 2)]
    assert sorted(numbers) == list(range(8))


def test_a_prior_of_packed_clips_is_kept_and_the_same_after_a_resume(packed: Path) -> None:
    prior = StoredPriors(packed / "priors", StandInPrior(), clips_identity(packed))
    order = PackedOrder(str(packed), "video", seed=1, prior=prior)
    found = {clip.name: kept for _, clip, kept in itertools.islice(order(0, 2, 0, 1), 10)}
    files = list((packed / "priors").glob("*.npz"))
    assert len(files) == len(found) == 5
    for _, clip, kept in itertools.islice(order(2, 2, 0, 1), 4):
        assert (kept.intrinsics == found[clip.name].intrinsics).all()


def test_sets_of_pictures_alone_do_not_feed_video_stages(wall, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "stills", rgb="png")
    writer.write_source("pictures", iter([wall(3, 1)]), still=True)
    writer.close()
    assert not has_kind(tmp_path / "stills", "video")
    with pytest.raises(InputError, match="kind video"):
        next(PackedOrder(str(tmp_path / "stills"), "video", seed=1)(0, 2, 0, 1))


def test_generated_clips_go_on_exactly(wall, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def render(source: SyntheticSource, number: int):
        made.append(number)
        return wall(number)

    monkeypatch.setattr(clips, "render_clip", render)
    order = GeneratedOrder(SyntheticSource(0, (64, 64), 4), ReplayPlan(5, 4, 2, 100))
    whole = taken(order, 0, 24)
    assert [sample for sample, _ in whole] == list(range(24))
    assert len(made) == len(set(made))  # a clip is rendered once while it is in use
    assert taken(order, 5, 8) == whole[10:18]
    halves = [taken(order, 0, 4, rank, 2) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == whole[:8]
