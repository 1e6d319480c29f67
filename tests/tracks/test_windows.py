import logging

import pytest
import torch

from geo4d.cameras.solve import fit_cameras
from geo4d.tracks.windows import Detector, KltTracker, Tracker, tracks_from_windows
from tests.support.tracks import trajectory_error


class GridDetector:
    name = "grid"
    licence = "none"

    def __call__(self, frame):
        ys, xs = torch.meshgrid(
            torch.arange(6, frame.shape[0] - 6, 7), torch.arange(6, frame.shape[1] - 6, 7), indexing="ij"
        )
        return torch.stack([xs, ys], -1).reshape(-1, 2) + 0.5


def test_windows_of_a_plugged_in_tracker_give_cameras(make_room, caplog):
    scene = make_room(num_frames=14, size=(96, 128), focal=100.0, travel=0.8, turn=0.1)
    assert isinstance(KltTracker(), Tracker)
    assert isinstance(GridDetector(), Detector)
    with caplog.at_level(logging.WARNING):
        tracks = tracks_from_windows(scene.rgb, KltTracker(), GridDetector(), window=8, stride=4)
    assert "licence" in caplog.text or "weights come under" in caplog.text
    assert tracks.num_frames == 14
    assert tracks.starts_shot.tolist() == [True] + [False] * 13
    assert ((tracks.track[1:] > tracks.track[:-1]) | (tracks.frame[1:] > tracks.frame[:-1])).all()
    motion = fit_cameras(tracks, intrinsics=scene.intrinsics[0])
    assert motion.shots[0].kind == "parallax"
    centres, turn = trajectory_error(motion, scene)
    assert centres < 0.005  # a path of 0.8
    assert turn < 1.0


def test_short_videos_are_one_window():
    tracks = tracks_from_windows(torch.rand(1, 32, 32, 3), KltTracker(), GridDetector())
    assert tracks.num_frames == 1
    assert tracks.num_tracks == 0
    with pytest.raises(ValueError, match="at least one frame"):
        tracks_from_windows([], KltTracker(), GridDetector())
