"""A run into a real S3: published at its end, gone on with after a failure, and read by the commands."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import geo4d
from geo4d.apps.cli import main
from geo4d.errors import OutputError, OutputInUse
from geo4d.formats.objects import Objects
from geo4d.models import base
from geo4d.results.manifest import MANIFEST
from geo4d.results.remote_lock import StoreLock
from geo4d.run.publish import local_place
from tests.support import batch_stub as batches
from tests.support.s3 import Proxy, faulty_s3

SETTINGS = ("--model", "stub", "--output-size", "model", "--tries", "0", "--no-motion", "--quiet")


@pytest.fixture(scope="module")
def s3() -> Iterator[Proxy]:
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    base.PREDICTORS["stub"] = batches.stub.__name__
    with faulty_s3() as proxy:
        yield proxy
    del base.PREDICTORS["stub"]


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return batches.write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 6)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Results are made in this test's folder, by one thread, and stores are asked again at once."""
    monkeypatch.setattr("geo4d.run.publish.tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_the_command_writes_to_a_store_and_export_reads_it(s3, video, tmp_path, capsys) -> None:
    url = "s3://bucket/run/a"
    assert main(["reconstruct", str(video), "-o", url, *SETTINGS]) == 0
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "disk"), *SETTINGS]) == 0
    stored, disk = geo4d.load(url), geo4d.load(tmp_path / "disk")
    assert np.array_equal(stored.depth[:], disk.depth[:], equal_nan=True)
    assert stored.provenance == disk.provenance
    assert not list((tmp_path / "tmp").rglob("*.json"))  # nothing stays on the disk
    assert stored.num_frames == 6
    assert main(["export", url, "--format", "tum", "-o", str(tmp_path / "a.txt")]) == 0
    assert main(["export", str(tmp_path / "disk"), "--format", "tum", "-o", str(tmp_path / "b.txt")]) == 0
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    capsys.readouterr()
    assert main(["reconstruct", str(video), "-o", url, *SETTINGS]) == OutputError.exit_code
    assert "--overwrite" in capsys.readouterr().err
    assert main(["reconstruct", str(video), "-o", url, *SETTINGS, "--overwrite", "--seed", "3"]) == 0
    assert geo4d.load(url).provenance["config"]["seed"] == 3
    assert main(["batch", str(video), "-o", url]) == 2
    assert f"--publish {url}" in capsys.readouterr().err


def test_a_result_that_could_not_be_published_waits_and_is_not_computed_again(
    s3, video, monkeypatch, capsys
) -> None:
    url = "s3://bucket/run/waits"
    s3.faults.extend([("PUT", "/waits/", "503")] * 9999)
    try:
        assert main(["reconstruct", str(video), "-o", url, *SETTINGS]) == OutputError.exit_code
    finally:
        s3.faults.clear()
    assert "waits in" in capsys.readouterr().err
    assert MANIFEST not in Objects(url).list()
    assert (local_place(url) / MANIFEST).is_file()
    assert main(["reconstruct", str(video), "-o", url, *SETTINGS, "--resume", "--seed", "5"]) == 4
    assert "other settings" in capsys.readouterr().err
    monkeypatch.setattr(batches.StubPredictor, "predict", lambda *a, **k: 1 / 0)
    assert main(["reconstruct", str(video), "-o", url, *SETTINGS, "--resume"]) == 0, capsys.readouterr().err
    assert geo4d.load(url).num_frames == 6
    assert not list(local_place(url).parent.iterdir())


def test_an_unfinished_run_for_a_store_goes_on(s3, video, monkeypatch) -> None:
    url, predict = "s3://bucket/run/unfinished", batches.StubPredictor.predict
    keywords = {"model": "stub", "output_size": "model", "tries": 0, "motion": False, "window_stride": 1}

    def stop(stage, done, total):
        if stage == "align":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        geo4d.reconstruct(video, url, on_progress=stop, **keywords)
    monkeypatch.setattr(batches.StubPredictor, "predict", lambda *a, **k: 1 / 0)
    assert geo4d.reconstruct(video, url, resume=True, **keywords).num_frames == 6
    assert predict is not None


def test_two_runs_to_one_address_do_not_meet(s3, video, tmp_path, capsys, monkeypatch) -> None:
    url = "s3://bucket/run/two"
    with StoreLock(url):
        assert main(["reconstruct", str(video), "-o", url, *SETTINGS]) == OutputInUse.exit_code
    assert "another run (process" in capsys.readouterr().err
    assert main(["reconstruct", str(video), "-o", "s3://no-such-bucket/a", *SETTINGS]) == 4
    assert "is the bucket there?" in capsys.readouterr().err
