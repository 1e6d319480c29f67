"""Files made by the authors' saving rule: ``np.savez(f"{start:05d}.npz", tracks=, visible=, query_time=)``."""

import numpy as np
import pytest
import torch

from geo4d.cameras.solve import fit_cameras
from geo4d.errors import InputError
from geo4d.tracks.sources import track_maker
from geo4d.tracks.spatracker import load_spatracker
from tests.support.tracks import path, rotation_error, simulated_tracks, trajectory_error

LENGTH, STRIDE = 12, 6


def save_windows(folder, tracks, scale=1.0):
    """Windows of 12 frames every 6, the last one at the end, points queried in the first and the last frame."""
    folder.mkdir(exist_ok=True)
    for k in range(0, tracks.num_frames, STRIDE):
        start = min(k, tracks.num_frames - LENGTH)
        xy, visible = tracks.window(start, start + LENGTH)
        query = np.where(visible[0].numpy(), 0, LENGTH - 1)
        np.savez(
            folder / f"{start:05d}.npz", tracks=scale * xy.numpy(), visible=visible.numpy(), query_time=query
        )


@pytest.fixture
def scene():
    return path(num_frames=20, travel=1.0)


def test_the_cameras_of_written_tracks(scene, tmp_path):
    save_windows(tmp_path / "tracks", simulated_tracks(scene))
    tracks = load_spatracker(tmp_path / "tracks", 20, (480, 640))
    assert tracks.starts_shot.tolist() == [True] + [False] * 19
    assert int(torch.bincount(tracks.track).min()) >= 2
    motion = fit_cameras(tracks, intrinsics=scene.intrinsics[0])
    assert trajectory_error(motion, scene)[0] < 0.02
    assert rotation_error(motion, scene) < 0.5


def test_pixels_of_another_size_are_scaled(scene, tmp_path):
    save_windows(tmp_path / "same", simulated_tracks(scene))
    save_windows(tmp_path / "larger", simulated_tracks(scene), scale=3.0)
    same = load_spatracker(tmp_path / "same", 20, (480, 640))
    larger = load_spatracker(tmp_path / "larger", 20, (480, 640), (1440, 1920))
    torch.testing.assert_close(larger.xy, same.xy)
    frames = [torch.zeros(480, 640, 3)] * 20
    made = track_maker("spatracker", [tmp_path / "larger"], picture_size=(1440, 1920))(frames, None)
    assert torch.equal(made.xy, larger.xy)
    masks = torch.zeros(20, 480, 640, dtype=torch.bool)
    masks[:, :, 320:] = True
    masked = track_maker("spatracker", [tmp_path / "same"])(frames, list(masks))
    assert 0 < masked.num_tracks < same.num_tracks
    assert float(masked.xy[:, 0].max()) < 320
    with pytest.raises(InputError, match=r"outside pictures of 640 x 480 pixels; .*--track-size"):
        load_spatracker(tmp_path / "larger", 20, (480, 640))


def test_frames_that_no_window_covers_start_a_shot(scene, tmp_path):
    save_windows(tmp_path / "tracks", simulated_tracks(scene))
    (tmp_path / "tracks" / "00006.npz").unlink()
    (tmp_path / "tracks" / "00008.npz").unlink()
    starts = load_spatracker(tmp_path / "tracks", 20, (480, 640)).starts_shot
    assert starts.nonzero()[:, 0].tolist() == [0, *range(12, 20)]


GOOD = {"tracks": np.ones((3, 2, 2)), "visible": np.ones((3, 2), bool), "query_time": np.zeros(2)}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("first.npz", {}, "expected a name that is the number of the first frame"),
        ("00003.npz", {}, "holds frames 3 to 5, but the video has 5"),
        ("00000.npz", {"visible": None}, "has no visible; expected one NNNNN.npz"),
        ("00000.npz", {"tracks": np.ones((3, 2, 3))}, r"got \[3, 2, 3\], \[3, 2\] and \[2\]"),
        ("00000.npz", {"query_time": np.zeros(3)}, r"got \[3, 2, 2\], \[3, 2\] and \[3\]"),
        ("00000.npz", {"tracks": np.full((3, 2, 2), np.nan)}, "expected finite positions"),
        ("00000.npz", {"visible": np.full((3, 2), "yes")}, "expected one NNNNN.npz"),
        ("00000.npz", {"visible": np.full((3, 2), None, object)}, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path, name, change, message):
    np.savez(tmp_path / name, **{k: v for k, v in {**GOOD, **change}.items() if v is not None})
    with pytest.raises(InputError, match=message):
        load_spatracker(tmp_path, 5, (10, 10))


def test_no_files_and_no_archives(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="expected a folder of tracks"):
            load_spatracker(folder, 5, (10, 10))
    (tmp_path / "00000.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="cannot be read"):
        load_spatracker(tmp_path, 5, (10, 10))
