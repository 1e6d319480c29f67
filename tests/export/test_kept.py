import logging
import re

import numpy as np
import pytest

from geo4d.export.kept import (
    CONFIDENT,
    DEFAULT_SHARE,
    LEAST_CONFIDENCE,
    KeptShare,
    default_confidence_threshold,
    kept_mask,
)
from geo4d.geometry.maps import depth_edges
from geo4d.types import Reconstruction

SIZE = (40, 60)


def made(confidence: np.ndarray, **fields) -> Reconstruction:
    """Flat depth with some invalid pixels and some sky, and the given confidence."""
    depth = np.full(confidence.shape, 2.0, np.float32)
    depth[:, :3], depth[:, 3:5] = np.nan, np.inf
    count = len(confidence)
    return Reconstruction(
        depth=fields.pop("depth", depth),
        confidence=confidence.astype(np.float32),
        intrinsics=np.tile(np.eye(3), (count, 1, 1)),
        times_s=np.arange(count) / 10,
        source_frames=np.arange(count),
        **fields,
    )


def share(reconstruction: Reconstruction, frames, threshold: float, edge_step: float = 0.1) -> KeptShare:
    counted = KeptShare(threshold, edge_step)
    for t in frames:
        depth, confidence = reconstruction.depth[t], reconstruction.confidence[t]
        keep = kept_mask(depth, confidence, min_confidence=threshold, edge_step=edge_step)
        counted.add(
            depth, confidence, keep, None if reconstruction.dynamic is None else reconstruction.dynamic[t]
        )
    return counted


@pytest.mark.parametrize("power", [1, 4, 30])
@pytest.mark.parametrize("level", [0.05, 0.4, 1.0])
def test_default_keeps_most_of_the_depth_and_of_what_moves(rng, power, level) -> None:
    """Whatever the distribution of confidence, and also when movers are the least sure."""
    confidence = 0.01 + 0.99 * level * rng.random((20, *SIZE)) ** (1 / power)
    dynamic = np.zeros_like(confidence, dtype=np.float32)
    dynamic[:, 10:20, 10:30] = 1
    confidence[:, 10:20, 10:30] *= 0.7
    reconstruction = made(confidence, dynamic=dynamic)
    threshold = default_confidence_threshold(reconstruction)
    assert threshold <= CONFIDENT
    counted = share(reconstruction, range(20), threshold)
    assert counted.share >= DEFAULT_SHARE - 0.02
    assert counted.moving_share is not None
    assert counted.moving_share >= DEFAULT_SHARE - 0.02
    assert not counted.is_low


def test_what_is_confident_is_all_kept_and_what_shows_nothing_is_not(rng) -> None:
    assert default_confidence_threshold(made(0.6 + 0.4 * rng.random((3, *SIZE)))) == CONFIDENT
    black = made(0.2 * LEAST_CONFIDENCE * rng.random((3, *SIZE)))
    assert share(black, range(3), default_confidence_threshold(black)).kept == 0
    assert share(black, range(3), LEAST_CONFIDENCE).kept == 0


def test_bars_do_not_drag_the_threshold_down(rng) -> None:
    """A third of the picture shows nothing: nothing of it is kept, and the usual share of the rest."""
    confidence = 0.1 + 0.2 * rng.random((8, *SIZE))
    confidence[:, :7] = confidence[:, -7:] = 0
    reconstruction = made(confidence)
    threshold = default_confidence_threshold(reconstruction)
    assert threshold > 0.1
    counted = share(reconstruction, range(8), threshold)
    assert counted.kept / (counted.finite * 26 / 35) == pytest.approx(DEFAULT_SHARE, abs=0.02)


def test_one_threshold_for_a_frame_and_for_its_scene(rng) -> None:
    confidence = rng.random((10, *SIZE)) * np.repeat([0.1, 0.4], 5)[:, None, None]
    reconstruction = made(confidence, scene=np.repeat([0, 1], 5))
    first = default_confidence_threshold(reconstruction, range(5))
    assert default_confidence_threshold(reconstruction, [3]) == first
    assert default_confidence_threshold(reconstruction, [7]) > 2 * first


def test_edges_do_not_drag_the_threshold_down(rng) -> None:
    """Where the edge filter alone takes much, letting in every doubtful pixel would not bring it back."""
    depth = np.tile(2.0 + (np.arange(SIZE[1]) // 4 % 2), (4, SIZE[0], 1)).astype(
        np.float32
    )  # half of it edges
    reconstruction = made(rng.random((4, *SIZE)) * 0.3, depth=depth)
    threshold = default_confidence_threshold(reconstruction)
    assert threshold == pytest.approx(0.3 * 0.05, abs=0.005)
    assert default_confidence_threshold(reconstruction, edge_step=0) == pytest.approx(0.045, abs=0.005)


def test_kept_mask_is_finite_confident_and_sharp(rng) -> None:
    import torch

    depth = rng.uniform(1, 3, SIZE).astype(np.float32)
    depth[0], depth[1] = np.nan, np.inf
    confidence = rng.random(SIZE).astype(np.float32)
    keep = kept_mask(depth, confidence, min_confidence=0.4, edge_step=0.5)
    edges = depth_edges(torch.from_numpy(depth), relative_step=0.5).numpy()
    np.testing.assert_array_equal(keep, np.isfinite(depth) & (confidence >= 0.4) & ~edges)
    everything = kept_mask(depth, confidence, min_confidence=0, edge_step=0)
    np.testing.assert_array_equal(everything, np.isfinite(depth))


def test_share_names_the_filter_that_takes_most(rng, caplog) -> None:
    log = logging.getLogger("test_kept")
    caplog.set_level("INFO", logger="test_kept")
    reconstruction = made(rng.random((4, *SIZE)))
    share(reconstruction, range(4), 0.1, edge_step=0).say(log)
    assert caplog.records[-1].levelname == "INFO"
    assert re.search("points from (89|90|91) % of the pixels with depth", caplog.text)
    share(reconstruction, range(4), 0.8, edge_step=0).say(log)
    assert caplog.records[-1].levelname == "WARNING"
    assert re.search(r"(79|80|81) % of the pixels with depth are below --min-confidence 0.8", caplog.text)
    dynamic = np.zeros((4, *SIZE), np.float32)
    dynamic[:, 10:20, 10:20] = 1
    confidence = np.where(dynamic > 0, 0.1, 0.9)
    movers = share(made(confidence, dynamic=dynamic), range(4), 0.5)
    assert movers.share > 0.9
    assert movers.moving_share == 0
    assert movers.is_low  # the whole looks well kept, what moves is gone
    assert (
        share(made(np.zeros((1, *SIZE)), depth=np.full((1, *SIZE), np.nan, np.float32)), [0], 0.1).share == 0
    )
