from types import SimpleNamespace

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.tracks.learned import DiskDetector, QueryTracker, SuperPointDetector
from geo4d.tracks.windows import Detector, Tracker


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

    # the network has no weights worth the name: what is checked is that its answer is read rightly
    def corners(pictures):
        assert pictures.shape == (1, 3, 48, 64)
        return SimpleNamespace(
            mask=torch.tensor([[1, 1, 0, 1]]),
            scores=torch.tensor([[0.2, 0.9, 1.0, 0.5]]),
            keypoints=torch.tensor([[[0.0, 0.0], [0.5, 0.25], [0.9, 0.9], [10 / 64, 20 / 48]]]),
        )

    detector._model = corners
    expected = torch.tensor([[32.5, 12.5], [10.5, 20.5], [0.5, 0.5]])
    torch.testing.assert_close(detector(torch.rand(48, 64, 3)), expected)
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
