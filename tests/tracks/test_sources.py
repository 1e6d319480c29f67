import pytest
import torch

from geo4d.cameras.solve import fit_cameras
from geo4d.errors import CheckpointError, PluginError
from geo4d.tracks.sources import SOURCES, followed, track_maker, windowed, without_masked
from geo4d.tracks.windows import KltTracker
from tests.support.packages import offer
from tests.support.tracks import rotation_error, trajectory_error


class Grid:
    name = "even grid"
    licence = "none: no weights"

    def __call__(self, frame):
        ys, xs = torch.meshgrid(
            torch.arange(6, frame.shape[0] - 6, 7), torch.arange(6, frame.shape[1] - 6, 7), indexing="ij"
        )
        return torch.stack([xs, ys], -1).reshape(-1, 2) + 0.5


def test_every_way_without_weights_gives_the_cameras(make_room):
    scene = make_room(num_frames=10, size=(120, 160), focal=125.0, travel=0.8, turn=0.1)
    for name in (name for name, source in SOURCES.items() if not source.weights and not source.package):
        motion = fit_cameras(track_maker(name)(scene.rgb, None), intrinsics=scene.intrinsics[0])
        assert trajectory_error(motion, scene)[0] < 0.03, name
        assert rotation_error(motion, scene) < 1.0, name


def test_nothing_is_kept_inside_a_mask(make_room):
    scene = make_room(num_frames=6, size=(72, 96))
    masks = torch.zeros(6, 72, 96, dtype=torch.bool)
    masks[:, :, 48:] = True
    tracks = windowed(KltTracker(), Grid())(scene.rgb, list(masks))
    whole = windowed(KltTracker(), Grid())(scene.rgb, None)
    assert float(tracks.xy[:, 0].max()) < 48
    assert 0 < tracks.num_tracks < whole.num_tracks
    assert int(torch.bincount(tracks.track).min()) >= 2
    again = without_masked(whole, [torch.zeros(72, 96, dtype=torch.bool)] * 6)
    assert torch.equal(again.xy, whole.xy)


def test_wrong_names_and_weights_say_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match="klt, sift"):
        track_maker("klr")
    with pytest.raises(ValueError, match="LightGlue for DISK"):
        track_maker("disk-lightglue", [tmp_path])
    with pytest.raises(ValueError, match="expected 0 weights"):
        track_maker("sift", [tmp_path])
    with pytest.raises((CheckpointError, ImportError), match=r"TorchScript|kornia"):
        track_maker("script", [tmp_path / "nothing.pt", tmp_path / "disk.pth"])


def test_the_command_offers_every_way(capsys):
    from geo4d.apps.cli import main

    assert main(["pose", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not [name for name in SOURCES if name not in text]


FOREIGN = """
from geo4d.tracks.sources import TrackSource, followed
SOURCE = TrackSource(lambda files, size: followed, ("a file",))
WRONG = 3
"""


def test_a_tracker_of_another_package(tmp_path, monkeypatch):
    offer(tmp_path, "geo4d.trackers", "theirs", "theirs_pack:SOURCE", FOREIGN, monkeypatch)
    assert track_maker("theirs", ["x"]) is followed
    with pytest.raises(ValueError, match=r"expected 1 weights \(a file\), got 0"):
        track_maker("theirs")
    with pytest.raises(ValueError, match="spatracker, theirs, got 'other'"):
        track_maker("other")


def test_a_tracker_of_another_package_that_is_none(tmp_path, monkeypatch):
    offer(tmp_path, "geo4d.trackers", "wrong", "wrong_pack:WRONG", FOREIGN, monkeypatch)
    with pytest.raises(
        PluginError, match=r"wrong-pack 1\.2 to be a geo4d.tracks.sources.TrackSource, got int"
    ):
        track_maker("wrong")
