from dataclasses import replace

import numpy as np
import pytest

from geo4d.datasets.base import Tracks
from geo4d.datasets.views import centre_crop, select
from geo4d.evaluation.protocols import PROTOCOLS, DepthProtocol, Protocol, geo4d
from geo4d.evaluation.score import score
from geo4d.evaluation.scoring.depth import aligned_depth
from tests.support.scored import truth


def test_nan_predictions_are_counted_and_stated(plane):
    maps = plane.depth / 3
    maps[:, :, :8] = np.nan
    result = score(truth(plane, maps=maps), plane, geo4d())
    assert result.metrics["coverage"] == pytest.approx(0.75)
    assert result.metrics["delta_125"] == pytest.approx(0.75)
    assert any(f"{12 * 24 * 8} reference-valid pixels" in warning for warning in result.warnings)


def test_a_constant_prediction_is_scored(plane):
    result = score(truth(plane, maps=np.ones_like(plane.depth)), plane, geo4d())
    assert result.metrics["abs_rel"] > 0.05
    assert result.metrics["coverage"] == 1
    assert any("constant" in warning for warning in result.warnings)


def test_sequence_without_valid_depth_is_degenerate(plane):
    sky = replace(plane, depth=np.full_like(plane.depth, np.inf))
    result = score(truth(plane), sky, geo4d())
    assert "abs_rel" not in result.metrics
    assert result.degenerate["depth"] == "no valid reference pixel"


@pytest.mark.parametrize(
    ("factor", "kind", "suspicious"),
    [(1000, "scale", True), (1e-3, "scale", True), (7, "scale", False), (200, "metric", True)],
)
def test_wrong_units_are_suspicious(plane, factor, kind, suspicious):
    result = score(truth(plane, maps=plane.depth * factor, scale_kind=kind), plane, PROTOCOLS["median"])
    assert any("suspicious units" in warning for warning in result.warnings) == suspicious
    assert result.metrics["abs_rel"] < 1e-5


def test_affine_disparity_needs_a_fit_in_disparity(plane):
    prediction = truth(plane, maps=0.4 / plane.depth + 0.2, quantity="disparity", scale_kind="affine")
    assert score(prediction, plane, PROTOCOLS["affine-disparity"]).metrics["abs_rel"] < 1e-4
    with pytest.raises(ValueError, match="disparity"):
        score(prediction, plane, geo4d())


def test_per_frame_alignment_forgives_flicker(plane):
    flicker = plane.depth * np.linspace(1, 2, 12, dtype=np.float32)[:, None, None]
    whole = score(truth(plane, maps=flicker), plane, PROTOCOLS["median"])
    each = score(truth(plane, maps=flicker), plane, PROTOCOLS["median-per-frame"])
    assert whole.metrics["abs_rel"] > 0.1
    assert each.metrics["abs_rel"] < 1e-5


def test_error_maps_use_the_scored_alignment(plane):
    aligned, reference = aligned_depth(truth(plane), plane, geo4d())
    np.testing.assert_allclose(aligned, reference, rtol=1e-4)
    capped = Protocol("c", "c", depth=DepthProtocol(max_depth=5.0))
    assert np.isnan(aligned_depth(truth(plane), plane, capped)[1]).any()


def test_own_tracks_are_used_where_there_are_some(plane):
    rows, columns = np.meshgrid(np.arange(2, 24, 4), np.arange(2, 32, 4), indexing="ij")
    rows, columns = rows.ravel(), columns.ravel()
    tracks = Tracks(
        np.broadcast_to(np.stack([columns, rows], -1) + 0.5, (12, rows.size, 2)),
        plane.depth[:, rows, columns],
        np.ones((12, rows.size), bool),
    )
    with_tracks = replace(plane, tracks=tracks)
    flicker = plane.depth * np.where(np.arange(12) % 2, 1.1, 1.0).astype(np.float32)[:, None, None]
    assert score(truth(plane), with_tracks, PROTOCOLS["median"]).metrics["depth_change"] < 1e-6
    result = score(truth(plane, maps=flicker), with_tracks, PROTOCOLS["median"])
    assert result.metrics["depth_change"] == pytest.approx(np.log(1.1), rel=1e-4)
    part = select(with_tracks, slice(0, 6, 2))
    assert part.tracks.depth.shape[0] == 3
    cropped = centre_crop(with_tracks, (20, 28))
    np.testing.assert_allclose(cropped.tracks.pixels[0, 0], tracks.pixels[0, 0] - 2)
