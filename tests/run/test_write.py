"""Maps of an aligned world brought to the size of the store, against the depth of that world at that size."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from geo4d.cameras.pose import RELIABLE
from geo4d.fusion.align import align
from geo4d.results.writer import StoreWriter
from geo4d.run import write
from geo4d.run.spool import Spool
from geo4d.run.write import camera_known, frame_arrays, resize_maps, write_maps
from geo4d.types import FrameMaps, Window
from geo4d.video.io import Video
from tests.support.motion import moving_camera, shot
from tests.support.truth import BoxWorld, TruthPredictor

SMALL, LARGE, NUM = (24, 40), (48, 80), 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight frames of boxes, aligned at the small size; the last frame is grey."""
    world = BoxWorld(SMALL)
    windows = [range(6), range(2, 8)]
    predictor = TruthPredictor(world, noise=0.0)
    spool = Spool(tmp_path_factory.mktemp("spool"), "float32")
    for index, frames in enumerate(windows):
        numbers = torch.tensor(frames)
        rgb = torch.stack([world.rgb(t) for t in frames])
        spool.write(predictor.predict(Window(rgb, numbers, numbers / 10.0, index, 10.0), seed=0))
    pictures = torch.stack([BoxWorld(LARGE).rgb(t) for t in range(NUM)])
    pictures[-1] = 0.5
    predictions = spool.sequence([(0, 0), (1, 0)])
    alignment = align(predictions, num_frames=NUM)
    return SimpleNamespace(alignment=alignment, predictions=predictions, clip=Video(pictures, fps=10.0))


class Kept(StoreWriter):
    """Keeps what is written, in the place of a store."""

    def __init__(self) -> None:
        self.size = LARGE
        self.maps: dict[int, FrameMaps] = {}
        self.rgb: dict[int, np.ndarray | None] = {}

    def write(self, maps: FrameMaps, rgb: np.ndarray | None = None) -> None:
        self.maps[maps.frame_index], self.rgb[maps.frame_index] = maps, rgb


def written(run, **options) -> tuple[Kept, Tensor]:
    kept = Kept()
    shown = write_maps(kept, run.alignment, run.predictions, run.clip, None, lambda *_: None, **options)
    return kept, shown


def test_maps_are_made_on_the_cpu_beside_a_device_without_float64(run) -> None:
    here, beside = written(run)[0].maps, written(run, device="mps")[0].maps
    assert torch.equal(here[3].depth, beside[3].depth)


def test_stored_depth_is_the_worlds_at_the_stored_size(run) -> None:
    kept, _ = written(run)
    assert sorted(kept.maps) == list(range(NUM))
    truth = {t: BoxWorld(LARGE).depth(t) for t in range(NUM - 1)}
    factor = float(torch.stack([wanted / kept.maps[t].depth for t, wanted in truth.items()]).median())
    quarter = 0.25 / (
        SMALL[0] / 2 - 0.5
    )  # of a small pixel: what the depth of the ceiling changes by, at the rim
    for t, wanted in truth.items():
        ratio = factor * kept.maps[t].depth / wanted - 1
        assert abs(float(ratio.median())) < 0.003
        assert float(ratio.abs().median()) < 1.1 * quarter
        assert float((ratio.abs() < 4 * quarter).float().mean()) > 0.9  # all but some pixels of an edge
    np.testing.assert_array_equal(kept.rgb[3], (run.clip.read([3], LARGE)[0] * 255).round().byte().numpy())


def test_a_frame_that_shows_nothing_keeps_no_confidence(run) -> None:
    kept, shown = written(run)
    assert shown.tolist() == [True] * (NUM - 1) + [False]
    assert float(kept.maps[NUM - 1].confidence.max()) == 0
    assert all(float(kept.maps[t].confidence.median()) > 0.5 for t in range(NUM - 1))


def test_a_factor_of_each_frame_changes_its_depth_alone(run) -> None:
    plain, _ = written(run)
    scaled, _ = written(run, factor=torch.arange(1.0, NUM + 1))
    for t in range(NUM):
        torch.testing.assert_close(scaled.maps[t].depth, plain.maps[t].depth * (t + 1), equal_nan=True)
        torch.testing.assert_close(scaled.maps[t].confidence, plain.maps[t].confidence)


def test_other_errors_of_storing_reach_the_caller(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> FrameMaps:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(write, "resize_maps", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        written(run)


def test_bars_keep_no_confidence_and_sky_stays_sky() -> None:
    picture = torch.rand(40, 60, 3, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.3
    picture[:7] = picture[33:] = 0
    low = torch.nn.functional.interpolate(picture.movedim(-1, 0)[None], (20, 30), mode="area")[0].movedim(
        0, -1
    )
    depth = torch.full((20, 30), 4.0)
    depth[:, 20:] = torch.inf
    depth[:, :5] = torch.nan
    maps = resize_maps(FrameMaps(5, depth, torch.ones(20, 30), torch.full((20, 30), torch.nan)), low, picture)
    assert maps.frame_index == 5
    assert (maps.confidence[:7] == 0).all()
    assert (maps.confidence[33:] == 0).all()
    assert (maps.confidence[9:31, 14:] == 1).all()
    assert torch.isnan(maps.depth[:, :8]).all()
    assert (maps.confidence[:, :8] == 0).all()  # unknown depth has none
    assert torch.isinf(maps.depth[:, 42:]).all()
    assert (maps.depth[:, 14:38] == 4).all()
    assert (maps.dynamic == 0).all()
    same = FrameMaps(0, depth, torch.ones(20, 30))
    assert resize_maps(same, low, low) is same


def test_intrinsics_are_those_of_the_stored_size(run) -> None:
    arrays = frame_arrays(run.alignment, run.clip, LARGE)
    wanted = BoxWorld(LARGE).intrinsics().numpy()
    np.testing.assert_allclose(arrays["intrinsics"], np.tile(wanted, (NUM, 1, 1)), rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(arrays["times_s"], np.arange(NUM) / 10)
    assert arrays["source_frames"].tolist() == list(range(NUM))
    assert arrays["c2w"].shape == (NUM, 4, 4)


def test_cameras_are_known_where_tracks_gave_one() -> None:
    like = torch.zeros(3, dtype=torch.bool)
    assert camera_known(None, like).tolist() == [True] * 3
    found = moving_camera([0.0, RELIABLE, 0.9], [shot(0, 3, "parallax")])
    assert camera_known(found, like).tolist() == [False, True, True]
    alone = moving_camera([0.0], [shot(0, 1, "unknown")])
    assert camera_known(alone, like[:1]).tolist() == [True]
