"""A batch whose results go to a real S3."""

import json

import numpy as np
import pytest

import geo4d
from geo4d.batch.ledger import BATCH, CLIPS, LEDGER, Ledger
from geo4d.batch.one import load, run_clip
from geo4d.batch.run import run_batch
from geo4d.batch.settings import BatchSettings
from geo4d.batch.task import Task
from geo4d.errors import OutputError, OutputInUse
from geo4d.formats.objects import Objects
from tests.batch.test_one import SETTINGS
from tests.support import batch_stub as batches


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)


@pytest.mark.slow
def test_a_clip_goes_to_the_store_and_is_found_there_again(s3, tmp_path) -> None:
    video = batches.write_clip(tmp_path / "a.mp4", 6)
    loaded, url = load(SETTINGS), "s3://bucket/one/a"
    task = Task("a", str(video), str(tmp_path / "out"), publish=url)
    s3.faults.extend([("PUT", "/one/a/", "503")] * 9999)
    note = run_clip(loaded, task, lambda *stage: None)
    s3.faults.clear()
    assert (note["state"], note["exit_code"]) == ("tried", OutputError.exit_code)
    assert (tmp_path / "out").is_dir()  # waits for the next try, which computes nothing
    note = run_clip(loaded, task, lambda *stage: pytest.fail("computed again"))
    assert (note["state"], note["published"]) == ("unchanged", url)
    assert not (tmp_path / "out").exists()
    assert geo4d.load(url).num_frames == 6
    note = run_clip(loaded, task, lambda *stage: pytest.fail("computed again"))
    assert (note["state"], note["frames"], note["published"]) == ("unchanged", 6, url)
    batches.write_clip(video, 4, seed=2)
    assert run_clip(loaded, task, lambda *stage: None)["state"] == "done"
    assert geo4d.load(url).num_frames == 4


@pytest.mark.slow
def test_a_whole_batch_goes_to_the_store_with_its_table(s3, tmp_path, monkeypatch) -> None:
    video = batches.write_clip(tmp_path / "in/a.mp4", 2)
    (tmp_path / "in/broken.mp4").write_text("no video")
    fsspec = pytest.importorskip("fsspec")
    url = "s3://bucket/batch"
    options = BatchSettings(table="all", publish=url + "/")
    how = {"options": options, "max_size": 64, "motion": False}
    # Workers are processes of their own: they learn of this S3 as a user's do, by the environment.
    monkeypatch.setenv("FSSPEC_S3", json.dumps(fsspec.config.conf["s3"]))
    tally = run_batch([str(tmp_path / "in")], tmp_path / "out", **how)
    assert tally.codes == {0: 1, 3: 1}
    assert {"summary.md", "summary.parquet"} <= set(Objects(url).list())
    records = {r["source"]: r for r in Ledger(tmp_path / "out" / BATCH / LEDGER).scan().values()}
    place = records[str(video)]["published"]
    assert place.startswith(f"{url}/{CLIPS}/")
    assert not any((tmp_path / "out" / CLIPS).rglob("*.json"))
    single = geo4d.reconstruct(video, tmp_path / "single", max_size=64, motion=False)
    assert np.array_equal(geo4d.load(place).depth[:], single.depth[:], equal_nan=True)
    again = run_batch([str(tmp_path / "in")], tmp_path / "out", **how)
    assert again.skipped == 2


def test_a_bucket_that_is_not_there_is_said_before_any_work(s3, tmp_path) -> None:
    batches.write_clip(tmp_path / "in/a.mp4", 4)
    options = BatchSettings(table="md", publish="s3://no-such-bucket/a")
    with pytest.raises(OutputError, match="expected a bucket no-such-bucket"):
        run_batch([str(tmp_path / "in")], tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="a folder is -o"):
        BatchSettings(publish=str(tmp_path))


def test_two_batches_that_publish_to_one_place_do_a_clip_once(s3, tmp_path) -> None:
    video = batches.write_clip(tmp_path / "a.mp4", 6)
    loaded, url = load(SETTINGS), "s3://bucket/both/a"
    first, second = (
        Task("a", str(video), str(tmp_path / name), publish=url, owner=name) for name in ("one", "two")
    )
    met = []

    def meanwhile(stage: str, done: int, total: int) -> None:
        if stage == "align" and not met:
            met.append(run_clip(loaded, second, lambda *stage: pytest.fail("computed, too")))

    assert run_clip(loaded, first, meanwhile)["state"] == "done"
    assert (met[0]["state"], met[0]["exit_code"]) == ("busy", OutputInUse.exit_code)
    note = run_clip(loaded, second, lambda *stage: pytest.fail("computed again"))
    assert (note["state"], note["published"]) == ("unchanged", url)
    assert set(Objects("s3://bucket/both").list()) == {f"a/{name}" for name in Objects(url).list()}  # no lock
