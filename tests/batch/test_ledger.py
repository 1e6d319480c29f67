"""What a batch was begun with, and its records."""

import errno
import json

import pytest

from geo4d.batch import ledger as module
from geo4d.batch.ledger import BATCH, IDENTITY, Ledger, check_output, claim, read_identity
from geo4d.errors import DiskFull, OutputError

OURS = {"versions": {"geo4d": "0.1.0"}, "config": {"stride": 1, "weights": None}, "device": "cpu"}


def test_the_same_batch_is_joined_and_another_one_refused_by_name(tmp_path) -> None:
    mark = claim(tmp_path / "out", OURS, overwrite=False)
    assert claim(tmp_path / "out", OURS, overwrite=False) == mark
    newer = {**OURS, "versions": {"geo4d": "0.2.0"}}
    with pytest.raises(OutputError, match=r"versions.geo4d: was 0.1.0, is 0.2.0.*--overwrite"):
        claim(tmp_path / "out", newer, overwrite=False)
    other = {**OURS, "config": {"stride": 2, "weights": None}}
    with pytest.raises(OutputError, match=r"config.stride: was 1, is 2"):
        claim(tmp_path / "out", other, overwrite=False)
    assert claim(tmp_path / "out", newer, overwrite=True) != mark
    assert read_identity(tmp_path / "out")["versions"] == {"geo4d": "0.2.0"}


def test_only_one_of_two_begins(tmp_path, monkeypatch) -> None:
    """Another coordinator makes the same folder between the look and the rename."""
    usual = module._begin

    def late(folder, identity):
        usual(folder, json.loads(json.dumps({**identity, "device": "cuda"})))
        usual(folder, identity)

    monkeypatch.setattr(module, "_begin", late)
    with pytest.raises(OutputError, match="device: was cuda, is cpu"):
        claim(tmp_path / "out", OURS, overwrite=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [BATCH]


def test_other_peoples_folders_are_left_alone(tmp_path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(OutputError, match="no output of a batch"):
        claim(tmp_path, OURS, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "photo.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_damaged_identity_is_said(tmp_path) -> None:
    claim(tmp_path, OURS, overwrite=False)
    (tmp_path / BATCH / IDENTITY).write_text("[]")
    with pytest.raises(OutputError, match="damaged"):
        claim(tmp_path, OURS, overwrite=False)


def test_records_of_others_are_seen_and_only_changes_are_read(tmp_path, monkeypatch) -> None:
    ours, theirs = Ledger(tmp_path), Ledger(tmp_path)
    assert ours.read("a") is None
    theirs.write("a", {"state": "pending"})
    theirs.write("b.1", {"state": "done", "share": float("nan")})
    assert {name: r["state"] for name, r in ours.scan().items()} == {"a": "pending", "b.1": "done"}
    assert ours.read("b.1")["share"] is None
    reads = []
    usual = module.read_json
    monkeypatch.setattr(module, "read_json", lambda path: reads.append(path.name) or usual(path))
    theirs.write("a", {"state": "quarantined"})
    reads.clear()
    assert ours.scan()["a"]["state"] == "quarantined"
    assert reads == ["a.json"]


def test_a_damaged_record_says_what_to_do(tmp_path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(OutputError, match="remove it"):
        Ledger(tmp_path).scan()


def test_a_full_disk_under_the_records(tmp_path, monkeypatch) -> None:
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(DiskFull):
        Ledger(tmp_path).write("a", {"state": "done"})
