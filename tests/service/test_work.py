"""Tasks of a process, done here: notes, previews, exports, and what goes on after an interruption."""

import shutil
import zipfile
from pathlib import Path

import pytest

from geo4d.batch.one import load
from geo4d.config import RunConfig
from geo4d.results.manifest import MANIFEST
from geo4d.service.jobs import PREVIEW, RESULT, SOURCE
from geo4d.service.tasks import Check, Export, Work
from geo4d.service.work import do
from tests.support.served import stub_run


@pytest.fixture(scope="module")
def loaded():
    return load(stub_run())


@pytest.fixture(scope="module")
def job(tmp_path_factory, clip, loaded) -> Path:
    """Folder of a job that is done."""
    folder = make(tmp_path_factory.mktemp("job"), clip)
    assert do(Work(folder, folder / SOURCE / "box.mp4"), loaded, lambda *words: None)["exit_code"] == 0
    return folder


def make(folder: Path, clip: Path) -> Path:
    (folder / SOURCE).mkdir(parents=True)
    shutil.copy(clip, folder / SOURCE / "box.mp4")
    (folder / "exports").mkdir()
    return folder


def test_plan_stages_and_summary(tmp_path, clip, loaded) -> None:
    folder, said = make(tmp_path / "job", clip), []
    note = do(
        Work(folder, folder / SOURCE / "box.mp4", {"stride": 2}), loaded, lambda *words: said.append(words)
    )
    assert (note["exit_code"], note["kind"], note["reason"]) == (0, "", "")
    assert note["summary"]["frames"] == 5
    assert note["summary"]["verdict"] == "usable"
    (plan,) = [words[1] for words in said if words[0] == "plan"]
    assert plan["source_size"] == [160, 96]
    stages = [words[1] for words in said if words[0] == "stage"]
    assert stages[0] == "find shots"
    assert stages[-1] == "preview"
    assert {"predict", "align", "write"} <= set(stages)
    assert (folder / PREVIEW / "index.json").is_file()


def test_a_result_that_is_there_is_not_made_again(tmp_path, clip, loaded) -> None:
    folder = make(tmp_path / "job", clip)
    task = Work(folder, folder / SOURCE / "box.mp4")
    do(task, loaded, lambda *words: None)
    before = (folder / RESULT / MANIFEST).stat().st_mtime_ns
    shutil.rmtree(folder / PREVIEW)
    said = []
    note = do(task, loaded, lambda *words: said.append(words[1]))
    assert note["exit_code"] == 0
    assert set(said) == {"preview"}
    assert (folder / RESULT / MANIFEST).stat().st_mtime_ns == before
    assert (folder / PREVIEW / "index.json").is_file()


def test_an_unfinished_run_of_another_model_is_begun_anew(tmp_path, clip, loaded) -> None:
    folder = make(tmp_path / "job", clip)
    task = Work(folder, folder / SOURCE / "box.mp4")

    def stop(kind: str, *words) -> None:
        if words[0] == "align":
            raise OSError(5, "the power went")

    assert do(task, loaded, stop)["exit_code"] == 4
    assert any(entry.name.startswith(".result") for entry in folder.iterdir())
    assert do(task, load(stub_run(noise=0.02)), lambda *words: None)["exit_code"] == 0


def test_a_doubtful_result_is_done_and_says_why(tmp_path, clip) -> None:
    folder = make(tmp_path / "job", clip)
    note = do(
        Work(folder, folder / SOURCE / "box.mp4"), load(stub_run(nan_windows=(0, 1))), lambda *words: None
    )
    if "summary" in note:
        assert note["exit_code"] == 9
        assert "not finite" in note["reason"]
        assert "geo4d report" not in note["reason"]
    else:
        assert note["exit_code"] == 8


def test_a_check_says_what_the_command_line_says_without_places(tmp_path, clip) -> None:
    folder = make(tmp_path / "job", clip)
    source = folder / SOURCE / "box.mp4"
    note = do(Check(source, RunConfig(), 10), None, print)
    assert (note["frames"], note["width"], note["height"], note["exit_code"]) == (10, 160, 96, 0)
    note = do(Check(source, RunConfig(), 9), None, print)
    assert (note["exit_code"], note["kind"]) == (3, "TooManyFrames")
    assert do(Check(source, RunConfig(stride=2), 5), None, print)["frames"] == 5
    assert do(Check(source, RunConfig(start=3, stop=5), 2), None, print)["frames"] == 2
    source.write_bytes(b"no film")
    note = do(Check(source, RunConfig(), 9), None, print)
    assert note["reason"].startswith("box.mp4 is not a video file")
    assert str(tmp_path) not in note["reason"]


def export(job: Path, name: str, mark: str = "0" * 12, **options):
    target = job / "exports" / f"{name}-{mark}"
    return do(Export(job, job / SOURCE / "box.mp4", name, "box", target, options), None, print)


def test_an_export_takes_the_place_of_the_former_one(job) -> None:
    first = export(job, "tum")
    assert first["file"] == f"tum-{'0' * 12}.txt"
    (job / "exports/tumult-000000000000.txt").write_text("of another format")
    second = export(job, "tum", "1" * 12, scale=2.0)
    names = sorted(file.name for file in (job / "exports").iterdir() if file.name.startswith("tum"))
    assert names == [f"tum-{'1' * 12}.txt", "tumult-000000000000.txt"]
    assert second["bytes"] == (job / "exports" / second["file"]).stat().st_size


def test_folders_come_as_a_zip(job) -> None:
    note = export(job, "exr")
    archive = zipfile.ZipFile(job / "exports" / note["file"])
    assert len([name for name in archive.namelist() if name.endswith(".exr")]) == 10
    assert all(name.startswith("box/exr/") for name in archive.namelist())


def test_an_export_that_fails_leaves_nothing(job) -> None:
    before = sorted(path.relative_to(job) for path in job.rglob("*"))
    for name, options in (("usd", {"up": "camera"}), ("ply", {"scene": 7}), ("ply", {"nonsense": 1})):
        note = export(job, name, **options)
        assert note["exit_code"] != 0
        assert note["reason"]
        assert str(job) not in note["reason"]
    assert sorted(path.relative_to(job) for path in job.rglob("*")) == before
