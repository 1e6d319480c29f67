"""Cameras from tracks on their way into the fusion."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import geo4d
from geo4d.cameras.pose import RELIABLE
from geo4d.errors import WorkSpaceFull
from geo4d.evidence.agreement import agreeing
from geo4d.optimise import scratch
from geo4d.results.places import run_folder
from geo4d.run import evidence
from geo4d.run.evidence import WindowEvidence, camera_evidence
from geo4d.types import Window
from geo4d.video.io import Video
from tests.support.motion import SIZE, moving_camera, shot
from tests.support.truth import BoxWorld, TruthPredictor


def test_frames_behind_lost_tracks_stand_still_in_place_of_being_guessed() -> None:
    motion = moving_camera([0.8] * 6 + [0.0] * 3, [shot(0, 6, "parallax"), shot(6, 9, "unknown")])
    found = camera_evidence(motion, [(0, 9)], SIZE)
    assert torch.equal(found.c2w[:6], motion.c2w[:6])
    assert torch.allclose(found.c2w[6:], motion.c2w[5])
    assert bool((found.confidence >= RELIABLE - 1e-6).all())
    assert torch.allclose(found.confidence[:6].float(), motion.confidence[:6])


def test_frames_in_a_gap_lie_on_the_way() -> None:
    motion = moving_camera([0.8] * 4 + [0.0] * 3 + [0.8] * 4, [shot(0, 11, "parallax")])
    truth = motion.c2w.clone()
    motion.c2w[4:7] = torch.eye(4, dtype=torch.float64)  # placeholders
    found = camera_evidence(motion, [(0, 11)], SIZE)
    assert torch.allclose(found.c2w, truth, atol=1e-9)


def test_where_nothing_is_known_nothing_is_claimed() -> None:
    motion = moving_camera([0.0] * 5, [shot(0, 5, "unknown")])
    assert float(camera_evidence(motion, [(0, 5)], SIZE).confidence.max()) == 0


def test_a_frame_before_the_first_known_one_stands_where_that_one_is() -> None:
    motion = moving_camera([0.0, 0.0] + [0.9] * 5, [shot(0, 7, "parallax")])
    found = camera_evidence(motion, [(0, 7)], SIZE)
    assert torch.allclose(found.c2w[:2], motion.c2w[2])


def test_a_zoom_goes_into_the_fusion_frame_by_frame() -> None:
    shots = [shot(0, 4, "rotation"), replace(shot(4, 9, "rotation"), zoom=True, focal_assumed=True)]
    motion = moving_camera([0.8] * 9, shots)
    motion.intrinsics[:, [0, 1], [0, 1]] *= torch.linspace(1, 2, 9)[:, None]
    found = camera_evidence(motion, [(0, 4), (4, 9)], SIZE)
    assert found.zooms.tolist() == [False] * 4 + [True] * 5
    assert found.focal_known.tolist() == [True] * 4 + [False] * 5
    assert torch.allclose(found.intrinsics, motion.intrinsics.double())
    assert found.at(torch.arange(4, 9)).zooms.all()
    assert [one["zoom"] for one in evidence.describe(motion)] == [False, True]


HOW = [({"evidence": "motion"}, 2**17), ({"gives_poses": False}, 2**15)]
"""Two ways to the cameras of a run: from tracks before the predictor, from tracks and depth after it; and bytes that a
few keyframes of it take at most, the whole shot not."""


def run(output, frames: int = 17, *, resume: bool = False, **how) -> geo4d.Reconstruction:
    world = BoxWorld((96, 160))
    video = torch.stack([world.rgb(t) for t in range(frames)])
    model = TruthPredictor(BoxWorld((24, 40)), length=8, stride=4, **how)
    return geo4d.reconstruct(video, output, model=model, output_size="model", resume=resume)


@pytest.mark.parametrize(("how", "held"), HOW)
def test_what_cameras_are_solved_with_lies_in_the_folder_of_the_run(tmp_path, monkeypatch, how, held) -> None:
    places = []
    usual = scratch.tempfile.TemporaryFile

    def watch(dir=None):
        places.append(dir)
        return usual(dir=dir)

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", watch)
    monkeypatch.setattr(scratch, "HELD_BYTES", held)
    run(tmp_path / "out", **how)
    assert None not in places
    assert {place.parent for place in places} == {run_folder(tmp_path / "out")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(("how", "held"), HOW)
def test_no_room_for_it_leaves_a_run_that_goes_on(tmp_path, monkeypatch, how, held) -> None:
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scratch.os, "posix_fallocate", full)
        patch.setattr(scratch, "HELD_BYTES", held)
        with pytest.raises(WorkSpaceFull, match=f"{run_folder(tmp_path / 'out')}.* bytes of work space"):
            run(tmp_path / "out", **how)
    assert run(tmp_path / "out", resume=True, **how).has_poses
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_frame_is_judged_once_however_many_windows_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[torch.Tensor] = []

    def count(disparity: torch.Tensor, confidence: torch.Tensor, moving: torch.Tensor | None) -> torch.Tensor:
        judged.append(disparity)
        return agreeing(disparity, confidence, moving)

    monkeypatch.setattr(evidence, "agreeing", count)
    motion = moving_camera([0.9] * 8, [shot(0, 8, "rotation")])
    clip = Video(np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8))
    windows = [tuple(range(6)), tuple(range(2, 8))]
    about = WindowEvidence(motion, clip, (12, 16), windows)
    for index, frames in enumerate(windows):
        numbers = torch.tensor(frames)
        window = Window(clip.read(numbers, (12, 16)), numbers, numbers / 24.0, index, 24.0)
        maps = about(window)
        assert maps.points.shape == (6, 12, 16, 3)
        assert torch.equal(maps.c2w, motion.c2w[numbers].float())
    assert [tuple(disparity.shape) for disparity in judged] == [(12, 16)] * 8


def test_evidence_does_not_depend_on_the_order_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that share a video go back: frames before the one where a sweep began lack their neighbours."""
    count, world = 36, BoxWorld((24, 32))
    clip = Video(torch.stack([world.rgb(t) for t in range(count)]))
    motion = moving_camera([0.9] * count, [shot(0, count, "parallax")])
    windows = [tuple(range(20, 28)), tuple(range(28, 36))]

    def about(order) -> dict[int, torch.Tensor]:
        evidence = WindowEvidence(motion, clip, (24, 32), windows)
        return {number: evidence(window_of(clip, windows[number], number)).points for number in order}

    def window_of(clip, frames, number) -> Window:
        numbers = torch.tensor(frames)
        return Window(clip.read(numbers, (24, 32)), numbers, numbers / 24.0, number, 24.0)

    forwards, backwards = about([0, 1]), about([1, 0])
    assert all(torch.equal(forwards[number], backwards[number]) for number in (0, 1))
