"""One video over several workers: the same bits as one process, whoever did what in which order and died on the way."""

import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import geo4d
from geo4d.batch.settings import WorkerSettings
from geo4d.batch.windows import WindowWorkers, choose_stretch, plan_stretches
from geo4d.errors import BatchError, DiskFull, ResourceError
from geo4d.formats.arrays import load_arrays
from geo4d.models.base import load_predictor
from geo4d.run.plan import RunPlan
from geo4d.video.io import Video
from tests.batch.test_local import await_true, windows
from tests.batch.test_one import arrays
from tests.support import batch_stub as batches
from tests.support.inline_engine import InlineEngine

WORKERS = WorkerSettings(workers=3)
FAST = {"output_size": "model", "tries": 0}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return batches.write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 60)


@pytest.fixture
def inline(monkeypatch):
    """What makes inline engines; gives the last one."""
    made = []

    def use(deaths=()):
        monkeypatch.setattr(
            "geo4d.batch.windows.make_engine",
            lambda how, job, settings, stall_s: made.append(InlineEngine(job, settings, deaths)) or made[-1],
        )
        return made

    return use


def both(video: Path, folder: Path, how=WORKERS, **settings) -> tuple[Path, Path]:
    """Results of one process and of several workers."""
    keywords = {"model": "stub", **FAST, **settings}
    geo4d.reconstruct(video, folder / "one", **keywords)
    geo4d.reconstruct(video, folder / "many", predict=WindowWorkers(how, **keywords), **keywords)
    return folder / "one", folder / "many"


@pytest.mark.parametrize("evidence", [pytest.param("motion", marks=pytest.mark.slow), None])
def test_any_order_with_deaths_gives_the_same_bits(video, tmp_path, inline, evidence) -> None:
    made = inline(deaths=[1, 99, 2, 1])
    one, many = both(video, tmp_path, model_options={"evidence": evidence}, keep_windows=True, stop=44)
    assert arrays(one) == arrays(many)
    engine = made[0]
    assert {number for number, _ in engine.given} == {0, 1, 2}
    names = [name for _, name in engine.given]
    assert names != sorted(names, key=lambda name: int(name.split()[1]))  # they did go back and forth
    assert sum(count - 1 for count in Counter(names).values()) == 3  # deaths
    kept = spooled(many)
    assert kept == spooled(one)
    assert any("evidence" in name for name in kept) == (evidence == "motion")
    assert not list((many / "windows").glob("*.rgb"))


def test_order_is_kept_within_a_shot_where_windows_go_on_from_each_other(
    video, tmp_path, inline, caplog
) -> None:
    made = inline()
    one, many = both(video, tmp_path, model_options={"carries": True}, stop=20)
    assert arrays(one) == arrays(many)
    assert len(made[0].given) == 1
    assert "1 of 3 workers have something to do" in caplog.text


def test_what_is_on_the_spool_is_not_asked_for_again(video, tmp_path, inline) -> None:
    made = inline()
    keywords = {"model": "stub", "stop": 16, **FAST}

    def stop(stage, done, total):
        if stage == "align":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        geo4d.reconstruct(video, tmp_path / "out", on_progress=stop, **keywords)
    workers = WindowWorkers(WORKERS, **keywords)
    geo4d.reconstruct(video, tmp_path / "out", resume=True, predict=workers, **keywords)
    assert made == []


def test_windows_that_end_every_worker_end_the_run_and_the_others_stay(video, tmp_path, inline) -> None:
    inline(deaths=[1] * 99)
    keywords = {"model": "stub", **FAST}
    with pytest.raises(ResourceError, match=r"windows \d+ to \d+ ended 3 workers: killed"):
        geo4d.reconstruct(
            video,
            tmp_path / "out",
            predict=WindowWorkers(replace(WORKERS, workers=1), **keywords),
            **keywords,
        )
    assert list((tmp_path / ".out.geo4d-run/windows").glob("window_*"))


def test_a_failure_keeps_its_code_and_other_results_are_refused(video, tmp_path, inline) -> None:
    inline()
    keywords = {"model": "stub", **FAST}
    full = tmp_path / "full"
    full.touch()
    workers = WindowWorkers(WORKERS, **keywords, model_options={"full": str(full)})
    with pytest.raises(BatchError, match="No space") as error:
        geo4d.reconstruct(video, tmp_path / "out", predict=workers, **keywords)
    assert error.value.exit_code == DiskFull.exit_code
    workers = WindowWorkers(WORKERS, **keywords, model_options={"noise": 0.5})
    with pytest.raises(BatchError, match=r"other results.*noise: was 0.01, is 0.5"):
        geo4d.reconstruct(video, tmp_path / "out", predict=workers, overwrite=True, **keywords)
    with pytest.raises(ValueError, match="name of a model"):
        WindowWorkers(WORKERS, model=load_predictor("stub"))


def spooled(folder: Path) -> dict[str, dict[str, bytes]]:
    """All arrays of all windows and their evidence; the files themselves hold the time of day."""
    return {
        path.name: {name: array.tobytes() for name, array in load_arrays(path)[0].items()}
        for path in (folder / "windows").glob("*_0*")
    }


def plan(count: int, scenes=((0, 99),), **info) -> tuple:
    predictor = load_predictor("stub").info
    made = object.__new__(RunPlan)
    object.__setattr__(made, "windows", tuple((2 * i, 2 * i + 1) for i in range(count)))
    object.__setattr__(made, "scenes", scenes)
    return made, replace(predictor, **info)


def test_stretches_hold_whole_groups_and_whole_shots_where_order_counts() -> None:
    def bounds(*rest, workers=2, evidence=False, **info):
        made, predictor = plan(*rest, **info)
        return [(s.first, s.stop) for s in plan_stretches(made, predictor, evidence, "", workers)]

    assert bounds(10) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert bounds(100)[:2] == [(0, 4), (4, 8)]
    assert bounds(10, windows_at_once=3, workers=9) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert bounds(10, windows_at_once=8, workers=9, evidence=True)[0] == (0, 1)
    assert bounds(10, ((0, 6), (6, 20)), carries=True) == [(0, 3), (3, 10)]


def test_workers_go_on_where_they_are_and_take_half_of_what_another_has_left() -> None:
    assert choose_stretch({0, 1, 2, 3}, None) == 0
    assert choose_stretch({1, 2, 3, 4, 5}, None) == 3
    assert choose_stretch({1, 2, 4, 5}, 0) == 1
    assert choose_stretch({1, 5, 6, 7}, 2) == 6


def test_pictures_on_disk_are_those_of_the_video(video, tmp_path) -> None:
    from geo4d.video.kept import KeptClip, KeptPictures

    with Video(video, stop=5) as clip:
        pictures = KeptPictures(tmp_path, [(24, 40)], 5)
        whole = torch.stack(list(clip.keep_on_the_way(pictures, (24, 40))))
        ours = KeptClip(pictures, clip.times_s, clip.fps)
        assert ours.num_frames == 5
        assert torch.equal(ours.read([3, 1], (24, 40)), whole[[3, 1]])
        with pytest.raises(ValueError, match="that are kept"):
            ours.read([0], (12, 20))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_killed_process_costs_its_window_and_no_bit(video, tmp_path, monkeypatch, engine) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "tests.support.ray_stub.with_stub")
    trace, out = tmp_path / "trace", tmp_path / "out"
    trace.mkdir()
    process = batches.start(
        "reconstruct", video, "-o", out, "--model", "stub", "--output-size", "model", "--tries", 0, "--quiet",
        "--workers", 2, "--engine", engine, trace=trace, sleep=0.5, evidence="motion",
    )  # fmt: skip
    await_true(lambda: len({pid for pid, _ in windows(trace)}) == 2, "there were never two workers")
    await_true(lambda: len(windows(trace)) >= 5, "the windows do not get on")
    os.kill(windows(trace)[-1][0], signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    begun = Counter(line[0] for _, line in windows(trace))
    assert len(begun) == 14
    assert sum(begun.values()) <= 16  # the one that was cut off, and the one that was being written
    assert len({pid for pid, _ in windows(trace)}) == 3
    geo4d.reconstruct(video, tmp_path / "one", model="stub", model_options={"evidence": "motion"}, **FAST)
    assert arrays(tmp_path / "one") == arrays(out)


@pytest.mark.slow
def test_the_bundled_model_in_two_processes(video, tmp_path) -> None:
    settings = {"model": "tiny", "model_options": {"num_pixels": 15360}, "stop": 40}
    one, many = both(video, tmp_path, WorkerSettings(workers=2, worker_cpus=1), **settings)
    assert arrays(one) == arrays(many)
