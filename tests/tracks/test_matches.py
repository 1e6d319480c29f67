import sys
from types import ModuleType

import pytest
import torch

from geo4d.cameras.solve import fit_cameras
from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.geometry.poses import relative
from geo4d.tracks.learned import DiskLightGlueMatcher, LightGlueMatcher
from geo4d.tracks.matches import Matcher, Matches, tracks_from_matches
from geo4d.tracks.sift import SiftMatcher
from tests.support.matched import where_they_go


class ExactMatcher:
    """The points of a grid on the first frame, matched exactly between any two frames that see them."""

    name, licence = "exact", "none"

    def __init__(self, scene, wrong=0):
        self.scene, self.wrong = scene, wrong
        ys, xs = torch.meshgrid(torch.arange(10, 90, 8), torch.arange(10, 120, 8), indexing="ij")
        self.points = torch.stack([xs, ys], -1).reshape(-1, 2) + 0.5

    def __call__(self, first, second):
        height, width = first.shape[:2]
        numbers = [
            next(t for t, f in enumerate(self.scene.rgb) if torch.equal(f, p)) for p in (first, second)
        ]
        a, b = (where_they_go(self.scene, 0, t, self.points).float() for t in numbers)
        size = torch.tensor([width, height])
        seen = ((a > 0) & (a < size) & (b > 0) & (b < size)).all(1)
        a, b = a[seen], b[seen]
        confidence = torch.full((len(a),), 0.9)
        if self.wrong:
            b[: self.wrong] = b[: self.wrong].roll(1, 0)
            confidence[: self.wrong] = 0.2
        return Matches(a, b, confidence)


def test_exact_matches_give_whole_tracks_and_the_cameras(make_room):
    scene = make_room(num_frames=8, size=(96, 128), focal=100.0, travel=0.5, turn=0.1)
    matcher = ExactMatcher(scene)
    assert isinstance(matcher, Matcher)
    tracks = tracks_from_matches(scene.rgb, matcher)
    assert tracks.num_tracks == len(matcher.points)
    assert tracks.starts_shot.tolist() == [True] + [False] * 7
    for t in range(8):
        mine = tracks.xy[tracks.frame == t]
        true = where_they_go(scene, 0, t, matcher.points)
        assert torch.cdist(mine.double(), true).min(1).values.max() < 1e-3
    motion = fit_cameras(tracks, intrinsics=scene.intrinsics[0])
    turn = relative(scene.c2w[0], scene.c2w[-1])[:3, :3]
    assert torch.allclose(relative(motion.c2w[0], motion.c2w[-1])[:3, :3].double(), turn, atol=2e-3)


def test_no_track_is_in_two_places_of_a_frame(make_room):
    scene = make_room(num_frames=6, size=(96, 128), focal=100.0, travel=0.5, turn=0.1)
    tracks = tracks_from_matches(scene.rgb, ExactMatcher(scene, wrong=12))
    same = (tracks.track[1:] == tracks.track[:-1]) & (tracks.frame[1:] <= tracks.frame[:-1])
    assert not same.any()
    without = tracks_from_matches(scene.rgb, ExactMatcher(scene, wrong=12), min_confidence=0.5)
    assert without.num_tracks <= tracks.num_tracks


def test_a_cut_and_blank_frames_share_nothing(make_room):
    scene = make_room(num_frames=3, size=(96, 128), focal=100.0)
    noise = torch.rand(2, 96, 128, 3, generator=torch.Generator().manual_seed(0))
    tracks = tracks_from_matches([*scene.rgb, *torch.zeros(2, 96, 128, 3), noise[0]], SiftMatcher())
    assert tracks.starts_shot.tolist() == [True, False, False, True, True, True]
    assert tracks.num_frames == 6


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least one frame"):
        tracks_from_matches([], SiftMatcher())
    with pytest.raises(ValueError, match="expected frames of size"):
        tracks_from_matches([torch.zeros(32, 32, 3), torch.zeros(32, 48, 3)], SiftMatcher())
    assert tracks_from_matches([torch.zeros(32, 32, 3)], SiftMatcher()).num_tracks == 0


@pytest.mark.slow
def test_lightglue_matches_come_from_the_given_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    points = transformers.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 8, 8], decoder_hidden_size=16, descriptor_decoder_dim=16
    )
    config = transformers.LightGlueConfig(
        keypoint_detector_config=points,
        descriptor_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        filter_threshold=0.0,
    )
    transformers.LightGlueForKeypointMatching(config).save_pretrained(tmp_path / "model")
    matcher = LightGlueMatcher(tmp_path / "model")
    assert isinstance(matcher, Matcher)
    assert "non-commercial" in matcher.licence
    frame = torch.rand(48, 64, 3)
    found = matcher(frame, frame.flip(1))
    assert len(found.first) == len(found.second) == len(found.confidence) > 0
    for xy in (found.first, found.second):
        assert (xy >= 0).all()
        assert (xy <= torch.tensor([64.0, 48.0])).all()
    assert tracks_from_matches([frame, frame.flip(1), frame], matcher, min_confidence=0).num_frames == 3
    with pytest.raises(CheckpointError, match="LightGlue"):
        LightGlueMatcher(tmp_path / "nothing")


def test_lightglue_with_disk_needs_kornia_and_files(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    with pytest.raises(MissingExtraError, match="learned-tracks"):
        DiskLightGlueMatcher(tmp_path / "disk.pth", tmp_path / "glue.pth")
    feature = ModuleType("kornia.feature")
    feature.DISK = lambda: torch.nn.Linear(2, 2)
    feature.LightGlue = lambda *a, **k: torch.nn.Linear(2, 2)
    monkeypatch.setitem(sys.modules, "kornia", ModuleType("kornia"))
    monkeypatch.setitem(sys.modules, "kornia.feature", feature)
    with pytest.raises(CheckpointError, match="expected DISK weights"):
        DiskLightGlueMatcher(tmp_path / "disk.pth", tmp_path / "glue.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "disk.pth")
    with pytest.raises(CheckpointError, match="does not hold DISK"):
        DiskLightGlueMatcher(tmp_path / "disk.pth", tmp_path / "glue.pth")


@pytest.mark.slow
def test_lightglue_with_disk_matches_from_the_given_files(tmp_path):
    feature = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    torch.save({"extractor": feature.DISK().state_dict()}, tmp_path / "disk.pth")
    glue = feature.LightGlue(None, input_dim=128).state_dict()
    authors = {}
    for key, value in glue.items():
        parts = key.split(".")
        if parts[0] == "transformers":
            parts[:3] = [parts[2], parts[1]]
        if key != "confidence_thresholds":
            authors[".".join(parts)] = value
    torch.save(authors, tmp_path / "glue.pth")
    matcher = DiskLightGlueMatcher(tmp_path / "disk.pth", tmp_path / "glue.pth", max_points=64)
    frame = torch.rand(64, 80, 3)
    found = matcher(frame, frame.flip(1))
    assert found.first.shape == found.second.shape
    assert found.confidence.shape == found.first.shape[:1]
    assert isinstance(matcher, Matcher)
