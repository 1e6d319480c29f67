from dataclasses import replace

import numpy as np
import pytest

from geo4d.datasets.base import Tracks
from geo4d.evaluation.protocols import PROTOCOLS
from geo4d.evaluation.score import score
from tests.support.scored import truth


def test_depth_and_cameras_on_two_scales_are_seen(plane):
    good = score(truth(plane, c2w=scaled_path(plane.c2w, 1 / 3)), plane, PROTOCOLS["median"])
    assert good.metrics["depth_over_cameras"] == pytest.approx(1, abs=1e-4)
    assert good.metrics["parallax_px"] > 3
    # The depth 8 % too near for the cameras: its factor to the truth is 8 % larger.
    near = truth(plane, maps=plane.depth / 3 / 1.08, c2w=scaled_path(plane.c2w, 1 / 3))
    for name in ("median", "affine-disparity"):  # whatever the protocol aligns
        result = score(near, plane, PROTOCOLS[name])
        assert result.metrics["depth_over_cameras"] == pytest.approx(1.08, abs=1e-4)
        assert result.metrics["abs_rel"] < 1e-4


def test_the_scale_of_a_path_without_parallax_is_not_determined(plane):
    c2w = scaled_path(plane.c2w, 0.02)
    result = score(truth(plane, c2w=c2w), replace(plane, c2w=c2w), PROTOCOLS["median"])
    assert result.metrics["ate"] is not None
    assert result.metrics["depth_over_cameras"] is None
    assert "px of parallax" in result.degenerate["scale"]


def scaled_path(c2w, factor):
    scaled = c2w.copy()
    scaled[:, :3, 3] *= factor
    return scaled


def test_flicker_is_told_from_shape_and_movers_from_the_rest(plane):
    steady = score(truth(plane, maps=plane.depth**0.5), plane, PROTOCOLS["median"])
    assert steady.metrics["abs_rel"] > 0.02
    assert steady.metrics["flicker_static"] < 0.02  # what the wrong shape changes as the camera moves
    pulse = np.exp(0.05 * (-1.0) ** np.arange(12))[:, None, None].astype(np.float32)
    moving = np.zeros(plane.depth.shape, bool)
    moving[:, :, 16:] = True
    grid = np.stack(np.meshgrid(np.arange(32) + 0.5, np.arange(24) + 0.5), -1).reshape(-1, 2)
    still = replace(
        plane,
        dynamic=moving,
        tracks=Tracks(
            np.tile(grid, (12, 1, 1)).astype(np.float32),
            plane.depth.reshape(12, -1),
            np.ones((12, grid.shape[0]), bool),
        ),
    )
    result = score(
        truth(plane, maps=np.where(moving, plane.depth * pulse, plane.depth)), still, PROTOCOLS["median"]
    )
    assert result.metrics["flicker_static"] == pytest.approx(0, abs=1e-6)
    assert result.metrics["flicker_moving"] == pytest.approx(0.1, abs=1e-5)


def test_confidence_is_scored_by_what_exports_keep(plane):
    wrong = np.zeros(plane.depth.shape, bool)
    wrong[:, :2] = True  # few enough for the default threshold to leave them out
    flat = replace(plane, depth=np.full_like(plane.depth, 4.0))
    confidence = np.where(wrong, 0.02, 0.9).astype(np.float32)
    dynamic = np.zeros_like(confidence)
    dynamic[:, 2:8] = 1
    guess = truth(
        flat, maps=np.where(wrong, 5.0, 4.0).astype(np.float32), confidence=confidence, dynamic=dynamic
    )
    result = score(guess, flat, PROTOCOLS["median"])
    assert result.metrics["confidence_spearman"] == pytest.approx(1)
    assert result.metrics["confidence_gap"] == pytest.approx(0.1, abs=0.01)
    assert result.metrics["kept"] == pytest.approx(21 / 24, abs=0.01)  # the jump between 4 and 5 goes, too
    assert result.metrics["kept_moving"] == pytest.approx(5 / 6, abs=0.01)
    assert result.metrics["kept_abs_rel"] == pytest.approx(0, abs=1e-6)
    assert len(result.confidence_sample["error"]) == len(result.confidence_sample["confidence"]) == 2000
    assert "kept" not in score(truth(flat), flat, PROTOCOLS["median"]).metrics


def test_every_scene_has_a_factor_of_its_own(plane):
    maps = plane.depth.copy()
    maps[6:] *= 5  # the second scene has another unit
    confidence = np.full_like(maps, 0.9)
    scene = np.repeat([0, 1], 6)
    one = score(truth(plane, maps=maps, confidence=confidence), plane, PROTOCOLS["median"])
    two = score(truth(plane, maps=maps, confidence=confidence, scene=scene), plane, PROTOCOLS["median"])
    assert max(two.confidence_sample["error"]) < 1e-5
    assert max(one.confidence_sample["error"]) > 0.5
