"""Windows through a predictor onto the spool: together where it takes several, and written beside the next."""

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geo4d.models.base import PredictorInfo
from geo4d.run.plan import RunPlan
from geo4d.run.predict import WindowSource, predict_windows
from geo4d.run.spool import Spool
from geo4d.types import EvidenceMaps, Prediction, Window
from geo4d.video.io import Video

SIZE = (8, 12)


class Counting:
    """A predictor whose depth is the number of the first frame plus one; it notes what it was asked for."""

    def __init__(self, together: int, fails_above: int = 99) -> None:
        self.info = PredictorInfo("counting", "", "", "0", 4, 2, windows_at_once=together)
        self.groups: list[list[int]] = []
        self.alone: list[int] = []
        self.fails_above = fails_above

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        return SIZE

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        return 0

    def prepare(self, windows: Iterable[Window]) -> dict[str, Tensor]:
        return {}

    def predict(self, window: Window, *, seed: int, previous: Any = None, **unused: Any) -> Prediction:
        self.alone.append(window.index)
        return self._answer(window, seed)

    def predict_batch(self, windows: Sequence[Window], *, seed: int) -> list[Prediction]:
        if len(windows) > self.fails_above:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.groups.append([window.index for window in windows])
        return [self._answer(window, seed) for window in windows]

    def _answer(self, window: Window, seed: int) -> Prediction:
        depth = torch.full((window.num_frames, *SIZE), float(window.frame_indices[0] + 1))
        points = torch.stack([depth, depth, depth], -1)
        return Prediction(window.frame_indices, window.times_s, window.index, point_map=points, seed=seed)


def source_of(predictor: Counting, count: int, evidence: Any = None) -> WindowSource:
    windows = tuple(tuple(range(2 * i, 2 * i + 4)) for i in range(count))
    clip = Video(np.zeros((40, *SIZE, 3), np.uint8), fps=10.0)
    plan = RunPlan(
        "made up",
        40,
        4.0,
        SIZE,
        SIZE,
        SIZE,
        ((0, 40),),
        windows,
        predictor.info,
        "cpu",
        "float32",
        0,
        None,
        0,
        0,
    )
    return WindowSource(clip, plan, predictor, 0, evidence=evidence)


def nothing_known(window: Window) -> EvidenceMaps:
    shape = (window.num_frames, *SIZE)
    return EvidenceMaps(torch.ones(*shape, 3), torch.zeros(shape, dtype=torch.bool))


def run(predictor: Counting, folder: Path, count: int = 7, evidence: Any = None) -> list[int]:
    folder.mkdir(exist_ok=True)
    seen: list[int] = []
    spool = Spool(folder, "float32")
    predict_windows(source_of(predictor, count, evidence), spool, lambda _, done, total: seen.append(done))
    for index in range(count):
        found = spool.read(index)
        assert found is not None
        assert found.point_map is not None
        assert torch.all(found.point_map == 2 * index + 1)
    return seen


def test_windows_go_together_where_the_predictor_takes_several(tmp_path: Path) -> None:
    predictor = Counting(3)
    assert run(predictor, tmp_path / "a") == [3, 6, 7]
    assert predictor.groups == [[0, 1, 2], [3, 4, 5], [6]]
    assert predictor.alone == []


def test_a_predictor_of_single_windows_is_asked_for_single_ones(tmp_path: Path) -> None:
    predictor = Counting(1)
    assert run(predictor, tmp_path / "a") == [1, 2, 3, 4, 5, 6, 7]
    assert (predictor.groups, predictor.alone) == ([], list(range(7)))


def test_evidence_comes_window_by_window(tmp_path: Path) -> None:
    predictor = Counting(3)
    run(predictor, tmp_path / "a", evidence=nothing_known)
    assert (predictor.groups, predictor.alone) == ([], list(range(7)))


def test_a_resumed_run_forms_the_same_groups(tmp_path: Path) -> None:
    run(Counting(3), tmp_path / "a")
    spool = Spool(tmp_path / "a", "float32")
    kept = {index: spool.path(index).stat().st_mtime_ns for index in (3, 5)}
    spool.path(4).unlink()
    predictor = Counting(3)
    run(predictor, tmp_path / "a")
    assert predictor.groups == [[3, 4, 5]]
    assert {index: spool.path(index).stat().st_mtime_ns for index in kept} == kept


def test_where_memory_is_short_they_go_one_by_one(tmp_path: Path) -> None:
    predictor = Counting(4, fails_above=2)
    run(predictor, tmp_path / "a", 6)
    assert predictor.groups == [[4, 5]]
    assert predictor.alone == [0, 1, 2, 3]


def test_other_errors_are_not_swallowed(tmp_path: Path) -> None:
    predictor = Counting(2)
    predictor.predict_batch = lambda windows, seed: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        run(predictor, tmp_path / "a")


def test_writing_goes_on_beside_the_next_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, started, beside = threading.get_ident(), threading.Event(), []
    write = Spool.write

    def slow(self: Spool, prediction: Prediction, attempt: int = 0) -> int:
        started.set()
        beside.append(threading.get_ident())
        time.sleep(0.02)
        return write(self, prediction, attempt)

    class Waiting(Counting):
        def predict(self, window: Window, **also: Any) -> Prediction:
            # The window before is being written by now, and this one is predicted all the same.
            assert window.index == 0 or started.wait(5)
            return super().predict(window, **also)

    monkeypatch.setattr(Spool, "write", slow)
    run(Waiting(1), tmp_path / "a")
    assert main not in beside
    assert len(beside) == 7


def test_a_full_disk_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Spool, prediction: Prediction, attempt: int = 0) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "write", fail)
    for together in (1, 3):
        with pytest.raises(OSError, match="No space"):
            run(Counting(together), tmp_path / f"a{together}")
