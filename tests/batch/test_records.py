"""Which records still say something about a clip."""

from pathlib import Path

import pytest

from geo4d.batch.clips import Clip
from geo4d.batch.leases import Presence
from geo4d.batch.ledger import CLIPS, Ledger
from geo4d.batch.records import Records
from geo4d.batch.settings import BatchSettings

CLIP = Clip("a", "path", "/a.mp4", stamp=(1, 2))


@pytest.fixture
def presence(tmp_path):
    with Presence(tmp_path / "coordinators") as opened:
        yield opened


def make(tmp_path: Path, presence: Presence, mark: str = "m", **options) -> Records:
    (tmp_path / "ledger").mkdir(exist_ok=True)
    (tmp_path / CLIPS / "a").mkdir(parents=True, exist_ok=True)
    (tmp_path / CLIPS / "a" / "manifest.json").touch()
    return Records(tmp_path, mark, BatchSettings(**options), Ledger(tmp_path / "ledger"), presence)


def test_a_finished_clip_is_settled_for_the_same_source_and_settings(tmp_path, presence) -> None:
    make(tmp_path, presence).write(CLIP, [], {"state": "done", "exit_code": 0})
    assert make(tmp_path, presence).settled(CLIP)["exit_code"] == 0
    assert make(tmp_path, presence, mark="other").settled(CLIP) is None
    assert make(tmp_path, presence).settled(Clip("a", "path", "/a.mp4", stamp=(1, 3))) is None
    assert make(tmp_path, presence).settled(Clip("b", "path", "/b.mp4")) is None
    (tmp_path / CLIPS / "a" / "manifest.json").unlink()
    records = Records(tmp_path, "m", BatchSettings(), Ledger(tmp_path / "ledger"), presence)
    assert records.settled(CLIP) is None


@pytest.mark.parametrize(("state", "option"), [("done", "verify"), ("failed", "retry_failed")])
def test_records_of_before_are_looked_at_again_on_demand_and_those_of_now_are_not(
    tmp_path, presence, monkeypatch, state: str, option: str
) -> None:
    make(tmp_path, presence).write(CLIP, [], {"state": state, "exit_code": 3})
    assert make(tmp_path, presence).settled(CLIP) is not None
    usual = Presence.now
    monkeypatch.setattr(Presence, "now", lambda self: usual(self) + 10)
    records = make(tmp_path, presence, **{option: True})
    assert records.settled(CLIP) is None
    records.write(CLIP, [], {"state": state, "exit_code": 3})
    assert records.settled(CLIP) is not None


def test_tries_belong_to_a_source_that_is_still_to_be_done(tmp_path, presence) -> None:
    records = make(tmp_path, presence)
    assert records.tries(CLIP) == []
    records.write(CLIP, [{"reason": "killed"}], {"state": "pending", "exit_code": 137})
    assert records.settled(CLIP) is None
    assert make(tmp_path, presence).tries(CLIP) == [{"reason": "killed"}]
    assert records.tries(Clip("a", "path", "/a.mp4", stamp=(9, 9))) == []
    records.write(CLIP, [{"reason": "killed"}], {"state": "quarantined", "exit_code": 137})
    assert records.tries(CLIP) == []
