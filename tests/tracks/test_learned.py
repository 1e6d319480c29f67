import logging

import pytest
import torch

from geo4d.cameras.solve import fit_cameras
from geo4d.errors import CheckpointError
from geo4d.evidence.mask_finders import MaskFinder, Sam2Finder, refine_masks, region_boxes
from geo4d.tracks.learned import DiskDetector, QueryTracker, SuperPointDetector
from geo4d.tracks.windows import Detector, KltTracker, Tracker, tracks_from_windows


class GridDetector:
    name = "grid"
    licence = "none"

    def __call__(self, frame):
        ys, xs = torch.meshgrid(
            torch.arange(6, frame.shape[0] - 6, 7), torch.arange(6, frame.shape[1] - 6, 7), indexing="ij"
        )
        return torch.stack([xs, ys], -1).reshape(-1, 2) + 0.5


class Grower:
    name = "grower"
    licence = "test licence"

    def __call__(self, frames, rough):
        return rough | rough.roll(1, 2)


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
    assert motion.confidence.min() > 0.3


def test_short_videos_are_one_window():
    tracks = tracks_from_windows(torch.rand(1, 32, 32, 3), KltTracker(), GridDetector())
    assert tracks.num_frames == 1
    assert tracks.num_tracks == 0
    with pytest.raises(ValueError, match="at least one frame"):
        tracks_from_windows([], KltTracker(), GridDetector())


def test_masks_are_refined_window_by_window():
    rough = torch.zeros(5, 6, 6, dtype=torch.bool)
    rough[:, 2, 2] = True
    assert isinstance(Grower(), MaskFinder)
    refined = torch.stack(list(refine_masks(torch.zeros(5, 6, 6, 3), rough, Grower(), window=2)))
    assert refined.shape == rough.shape
    assert refined[:, 2, 3].all()


def test_regions_become_boxes_largest_first():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[2:5, 3:9] = True
    mask[10:18, 12:25] = True
    mask[0, 29] = True
    assert region_boxes(mask, 4, 0.005) == [(12, 10, 25, 18), (3, 2, 9, 5)]
    assert region_boxes(mask, 1, 0.005) == [(12, 10, 25, 18)]


@pytest.mark.slow
def test_missing_weights_are_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="SAM 2"):
        Sam2Finder(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="SAM 2"):
        Sam2Finder(tmp_path)


def test_disk_points_come_from_the_given_weights(tmp_path):
    kornia = pytest.importorskip("kornia")
    torch.manual_seed(0)
    torch.save({"extractor": kornia.feature.DISK().state_dict()}, tmp_path / "disk.pth")
    points = DiskDetector(tmp_path / "disk.pth", max_points=50)(torch.rand(48, 64, 3))
    assert 0 < len(points) <= 50
    assert (points >= 0).all()
    assert (points <= torch.tensor([64.0, 48.0])).all()
    with pytest.raises(CheckpointError, match="DISK"):
        DiskDetector(tmp_path / "other.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match="DISK"):
        DiskDetector(tmp_path / "wrong.pth")


@pytest.mark.slow
def test_sam2_follows_boxes_with_the_given_weights(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        global_attention_blocks=[3],
    )
    vision = transformers.Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16])
    config = transformers.Sam2VideoConfig(vision_config=vision, memory_attention_num_layers=1)
    transformers.Sam2VideoModel(config).save_pretrained(tmp_path)
    finder = Sam2Finder(tmp_path)
    rough = torch.zeros(2, 48, 64, dtype=torch.bool)
    assert not finder(torch.rand(2, 48, 64, 3), rough).any()
    rough[1, 10:30, 20:40] = True
    found = finder(torch.rand(2, 48, 64, 3), rough)
    assert found.shape == rough.shape
    assert found.dtype == torch.bool


@pytest.mark.slow
def test_superpoint_points_come_from_the_given_weights(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 8, 8], decoder_hidden_size=16, descriptor_decoder_dim=16
    )
    transformers.SuperPointForKeypointDetection(config).save_pretrained(tmp_path / "model")
    detector = SuperPointDetector(tmp_path / "model", max_points=20)
    points = detector(torch.rand(48, 64, 3))
    assert isinstance(detector, Detector)
    assert 0 < len(points) <= 20
    assert (points >= 0.5).all()
    assert (points <= torch.tensor([64.0, 48.0])).all()
    with pytest.raises(CheckpointError, match="SuperPoint"):
        SuperPointDetector(tmp_path / "nothing")


class Drift(torch.nn.Module):
    """Every point moves by (1, 2) pixels per frame; it is hidden in the last one."""

    def forward(self, video: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = torch.arange(video.shape[1]).to(queries.dtype)
        steps = frames[None, :, None] - queries[:, None, :, 0]
        tracks = queries[:, None, :, 1:] + steps[..., None] * torch.tensor([1.0, 2.0])
        visible = (frames < video.shape[1] - 1)[None, :, None].expand(1, -1, queries.shape[1])
        return tracks, visible.to(queries.dtype)


def test_a_tracker_can_be_a_script_or_a_callable(tmp_path):
    torch.jit.script(Drift()).save(str(tmp_path / "tracker.pt"))
    video, queries = torch.zeros(4, 16, 16, 3), torch.tensor([[3.5, 4.5], [8.0, 2.0]])
    for model in (tmp_path / "tracker.pt", Drift()):
        tracker = QueryTracker(model, name="drift", licence="none")
        assert isinstance(tracker, Tracker)
        xy, visible = tracker(video, queries, 1)
        torch.testing.assert_close(xy[1], queries)
        torch.testing.assert_close(xy[3], queries + torch.tensor([2.0, 4.0]))
        assert visible.tolist() == [[True, True]] * 3 + [[False, False]]
    with pytest.raises(CheckpointError, match="TorchScript"):
        QueryTracker(tmp_path / "nothing.pt", name="drift", licence="none")
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(CheckpointError, match="TorchScript"):
        QueryTracker(tmp_path / "text.pt", name="drift", licence="none")
    wrong = QueryTracker(lambda v, q: (q, q), name="wrong", licence="none")
    with pytest.raises(ValueError, match="wrong: expected tracks"):
        wrong(video, queries, 0)
