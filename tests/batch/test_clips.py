"""Names and shares of clips."""

import pytest

from geo4d.batch.clips import Clip, in_shard, make_name, parse_shard
from geo4d.results.places import check_name


def test_names_are_readable_unique_and_stable(tmp_path) -> None:
    name = make_name("/data/day 1/clip.one.mp4")
    assert name == make_name("/data/day 1/clip.one.mp4")
    assert name.startswith("day-1_clip-one-")
    assert make_name("/other/day 1/clip.one.mp4") != name
    assert make_name("/data/a.tar", "x/b.mp4") != make_name("/data/a.tar", "x/b.mp4#2")
    assert make_name("/data/a.tar", "b.mp4").startswith("a_b-")


@pytest.mark.parametrize(
    "place", ["/", "/data/" + "n" * 400 + ".mp4", "/d/映画.mp4", "/d/..mp4", "s3://b/c d/e.mp4", "/d/con"]
)
def test_any_place_gives_a_name_that_every_system_takes(tmp_path, place: str) -> None:
    name = make_name(place)
    assert name.isascii()
    assert not name.startswith((".", "-"))
    check_name(name, f".{name}.geo4d-run", tmp_path, "nt")


def test_shares_are_a_partition_and_depend_on_the_name_alone() -> None:
    names = [make_name(f"/data/{i}.mp4") for i in range(400)]
    shares = [[name for name in names if in_shard(name, (i, 4))] for i in range(1, 5)]
    assert sorted(name for share in shares for name in share) == sorted(names)
    assert all(60 < len(share) < 140 for share in shares)
    assert in_shard(names[0], None)


@pytest.mark.parametrize("text", ["0/3", "4/3", "a/b", "3", "-1/2", "1/0"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to N"):
        parse_shard(text)


def test_a_share_is_read() -> None:
    assert parse_shard("3/10") == (3, 10)
    assert parse_shard(None) is None


def test_the_source_for_people_names_the_member() -> None:
    assert Clip("n", "tar", "/a.tar", "b.mp4").source == "/a.tar|b.mp4"
    assert Clip("n", "path", "/a.mp4", stamp=(1, 2)).to_json()["stamp"] == [1, 2]
