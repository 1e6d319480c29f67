"""Finished windows in a store: another machine goes on from them, with the same bits, whatever the store does."""

from pathlib import Path

import pytest
import torch

import geo4d
from geo4d.apps.cli import main
from geo4d.errors import InputError, OtherSettings, OutputError, OutputInUse
from geo4d.formats.objects import Objects
from geo4d.models import base
from geo4d.results.remote_lock import StoreLock
from tests.batch.test_local import windows
from tests.batch.test_one import arrays
from tests.support import batch_stub as batches

RUN = {"model": "stub", "output_size": "model", "tries": 0}


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return batches.write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 24)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setitem(base.PREDICTORS, "stub", batches.stub.__name__)
    monkeypatch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stop_at(number: int):
    def progress(stage, done, total):
        if stage == "predict" and done == number:
            raise KeyboardInterrupt

    return progress


def run(video: Path, output: Path, url: str, trace: Path, *, evidence: str | None = None, **how):
    trace.mkdir(exist_ok=True)
    options = {"trace": str(trace), "evidence": evidence}
    how = {"spool_copy": url, **RUN, **how}
    return geo4d.reconstruct(video, output, model_options=options, **how)


@pytest.mark.parametrize("evidence", [None, pytest.param("motion", marks=pytest.mark.slow)])
def test_another_machine_goes_on_with_the_same_bits(s3, video, tmp_path, evidence) -> None:
    url, trace = f"s3://bucket/spool/{evidence}", tmp_path / "trace"
    s3.faults.extend(("PUT", f"/{evidence}/window", kind) for kind in ("503", "lost"))
    with pytest.raises(KeyboardInterrupt):
        run(video, tmp_path / "gone", url, trace, evidence=evidence, on_progress=stop_at(4))
    kept = {name for name in Objects(url).list() if name.startswith("window")}
    assert len(kept) == 4
    assert len([n for n in Objects(url).list() if n.startswith("evidence")]) >= (4 if evidence else 0)
    with pytest.raises(OutputError, match=r"holds 4 windows of an unfinished run; --resume"):
        run(video, tmp_path / "other", url, trace, evidence=evidence)
    s3.faults.extend(("GET", f"/{evidence}/window", kind) for kind in ("short", "cut", "503"))
    before = len(windows(trace))
    run(video, tmp_path / "other", url, trace, evidence=evidence, resume=True)
    total = len(range(0, 24 - 8 + 1, 4))
    assert len(windows(trace)) - before == total - 4  # only what was not there
    assert Objects(url).list() == {}
    assert {"503", "lost", "short", "cut"} <= set(s3.used)
    geo4d.reconstruct(
        video, tmp_path / "one", model_options={"trace": str(trace), "evidence": evidence}, **RUN
    )
    assert arrays(tmp_path / "one") == arrays(tmp_path / "other")


def test_a_store_that_goes_down_ends_no_run_that_has_begun(s3, video, tmp_path, caplog) -> None:
    url = "s3://bucket/spool/down"

    def progress(stage, done, total):
        if stage == "predict" and done == 2:
            s3.faults.extend(("PUT", "/down/", "503") for _ in range(999))

    try:
        run(video, tmp_path / "out", url, tmp_path / "trace", on_progress=progress)
    finally:
        s3.faults.clear()
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert caplog.text.count("the run goes on") == 1


def test_what_is_no_copy_of_this_run_is_refused_before_any_work(s3, video, tmp_path) -> None:
    url, trace = "s3://bucket/spool/mixed", tmp_path / "trace"
    with pytest.raises(KeyboardInterrupt):
        run(video, tmp_path / "a", url, trace, on_progress=stop_at(2))
    with pytest.raises(OtherSettings, match="seed: was 0, is 5"):
        run(video, tmp_path / "b", url, trace, resume=True, seed=5)
    with StoreLock(url), pytest.raises(OutputInUse):
        run(video, tmp_path / "b", url, trace, resume=True)
    begun = len(windows(trace))
    Objects(url).write("theirs.txt", b"x")
    with pytest.raises(OutputError, match=r"holds theirs\.txt, which is no window"):
        run(video, tmp_path / "b", url, trace, overwrite=True)
    with pytest.raises(OutputError, match="bucket there"):
        run(video, tmp_path / "b", "s3://none/a", trace)
    with pytest.raises(InputError, match="expected a store of the kinds"):
        run(video, tmp_path / "b", "ftp://none/a", trace)
    assert len(windows(trace)) == begun
    Objects(url).remove(["theirs.txt"])
    run(video, tmp_path / "b", url, trace, overwrite=True)
    assert Objects(url).list() == {}


def test_the_command_wants_an_address(video, tmp_path, capsys) -> None:
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "o"), "--spool-copy", "here"]) == 2
    assert "expected an address" in capsys.readouterr().err
