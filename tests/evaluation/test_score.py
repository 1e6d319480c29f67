"""Scoring of one sequence: coverage, degenerate parts, units, sizes, and predictors that are wrong in known ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d.datasets.base import Tracks
from geo4d.datasets.views import centre_crop, select
from geo4d.evaluation.predicted import Predicted, from_reconstruction
from geo4d.evaluation.protocols import PROTOCOLS, DepthProtocol, Protocol, geo4d, geometrycrafter
from geo4d.evaluation.score import score
from geo4d.evaluation.scoring.depth import aligned_depth
from geo4d.evaluation.scoring.frames import resize_map
from geo4d.types import Reconstruction


def truth(sequence, **changes):
    fields = {
        "frames": np.arange(sequence.num_frames),
        "size": sequence.size,
        "maps": sequence.depth / 3,
        "intrinsics": sequence.intrinsics,
        "c2w": sequence.c2w,
        **changes,
    }
    return Predicted(**fields)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "metric"])
def test_scaled_truth_is_perfect(plane, name):
    result = score(truth(plane), plane, PROTOCOLS[name])
    assert result.metrics["abs_rel"] < 1e-5
    assert result.metrics["delta_125"] == 1
    assert result.metrics["coverage"] == 1
    assert result.metrics["ate"] < 1e-9
    assert result.metrics["depth_change"] < 0.02  # pixels are followed to the nearest centre
    assert max(result.metrics[name] for name in ("fx_rel", "fy_rel", "fy_fx_rel", "cx_rel", "cy_rel")) < 1e-9
    assert result.degenerate == {}


def test_points_follow_geometrycrafter(plane):
    result = score(truth(plane), plane, geometrycrafter(max_depth=70, weighted=True))
    assert result.metrics["point_rel"] < 1e-5
    assert result.metrics["point_delta"] == 1
    assert result.metrics["point_scale"] == pytest.approx(3, rel=1e-5)
    wide = plane.intrinsics * np.array([[0.5], [0.5], [1.0]])
    wide[:, :2, 2] = plane.intrinsics[:, :2, 2]
    assert (
        score(truth(plane, intrinsics=wide), plane, geometrycrafter(max_depth=70, weighted=True)).metrics[
            "point_rel"
        ]
        > 0.1
    )


def test_missing_frames_and_pixels_count(plane):
    whole = score(truth(plane), plane, geo4d())
    frames = np.arange(0, 12, 2)
    part = truth(
        plane,
        frames=frames,
        maps=plane.depth[frames] / 3,
        intrinsics=plane.intrinsics[frames],
        c2w=plane.c2w[frames],
    )
    result = score(part, plane, geo4d())
    assert result.metrics["coverage"] == pytest.approx(0.5)
    assert result.metrics["delta_125"] == pytest.approx(0.5)
    assert result.metrics["pose_coverage"] == pytest.approx(0.5)
    assert result.metrics["intrinsics_coverage"] == pytest.approx(0.5)
    assert result.metrics["abs_rel"] == pytest.approx(whole.metrics["abs_rel"], abs=1e-5)
    assert any("6 of 12 frames have no prediction" in warning for warning in result.warnings)


def test_nan_predictions_are_counted_and_stated(plane):
    maps = plane.depth / 3
    maps[:, :, :8] = np.nan
    result = score(truth(plane, maps=maps), plane, geo4d())
    assert result.metrics["coverage"] == pytest.approx(0.75)
    assert result.metrics["delta_125"] == pytest.approx(0.75)
    assert any(f"{12 * 24 * 8} reference-valid pixels" in warning for warning in result.warnings)


def test_nothing_predicted_is_all_wrong_not_absent(plane):
    empty = truth(plane, maps=np.full_like(plane.depth, np.nan), c2w=np.full_like(plane.c2w, np.nan))
    result = score(empty, plane, geo4d())
    assert result.metrics["coverage"] == 0
    assert result.metrics["delta_125"] == 0
    assert result.metrics["abs_rel"] is None
    assert result.metrics["pose_coverage"] == 0
    assert result.metrics["ate"] is None
    bare = score(truth(plane, maps=None, c2w=None), plane, geo4d())
    assert bare.metrics["coverage"] == 0
    assert bare.metrics["pose_coverage"] == 0
    assert set(bare.degenerate) == {"depth", "poses"}


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
    ("poses", "reason"),
    [(np.zeros((12, 3)), "no motion"), (np.arange(12)[:, None] * np.ones((12, 3)), "collinear path")],
)
def test_degenerate_paths_are_reported(plane, poses, reason):
    c2w = plane.c2w.copy()
    c2w[:, :3, 3] = poses
    result = score(truth(plane), replace(plane, c2w=c2w), geo4d())
    assert result.degenerate["poses"] == reason
    assert result.metrics["ate"] is None


def test_one_frame(plane):
    single = select(plane, slice(0, 1))
    prediction = truth(
        plane, frames=np.arange(1), maps=plane.depth[:1], intrinsics=plane.intrinsics[:1], c2w=plane.c2w[:1]
    )
    result = score(prediction, single, geo4d())
    assert result.degenerate["poses"] == "one frame"
    assert result.metrics["abs_rel"] < 1e-5
    assert result.metrics["ate"] is None


@pytest.mark.parametrize(
    ("factor", "kind", "suspicious"),
    [(1000, "scale", True), (1e-3, "scale", True), (7, "scale", False), (200, "metric", True)],
)
def test_wrong_units_are_suspicious(plane, factor, kind, suspicious):
    result = score(truth(plane, maps=plane.depth * factor, scale_kind=kind), plane, PROTOCOLS["median"])
    assert any("suspicious units" in warning for warning in result.warnings) == suspicious
    assert result.metrics["abs_rel"] < 1e-5


def test_maps_of_another_size_are_resized(plane):
    half = plane.depth.reshape(12, 12, 2, 16, 2).mean((2, 4))
    result = score(truth(plane, maps=half / 3, size=(12, 16)), plane, geo4d())
    assert result.metrics["coverage"] == 1
    assert result.metrics["abs_rel"] < 0.01


def test_resize_keeps_holes_and_values():
    values = torch.arange(48.0).reshape(6, 8)
    assert torch.equal(resize_map(values, (6, 8)), values)
    values[:, :4] = torch.nan
    large = resize_map(values, (12, 16))
    assert torch.isnan(large[:, :7]).all()
    assert torch.isfinite(large[:, 9:]).all()
    known = large[torch.isfinite(large)]
    assert known.min() >= 0
    assert known.max() <= 60


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


def test_frames_outside_the_sequence_are_refused(plane):
    with pytest.raises(ValueError, match="frame 12"):
        score(truth(plane, frames=np.arange(1, 13)), plane, geo4d())


def test_a_reconstruction_is_scored_by_its_source_frames(plane):
    frames = np.arange(0, 12, 3)
    reconstruction = Reconstruction(
        depth=plane.depth[frames] * 2,
        confidence=np.ones((4, *plane.size), np.float32),
        intrinsics=plane.intrinsics[frames],
        times_s=plane.times_s[frames],
        source_frames=frames,
        c2w=plane.c2w[frames],
        scene=np.array([0, 0, 0, 1]),
    )
    result = score(reconstruction, plane, geo4d())
    assert result.metrics["coverage"] == pytest.approx(4 / 12)
    assert result.metrics["abs_rel"] < 1e-5
    assert result.metrics["pose_coverage"] == pytest.approx(3 / 12)
    assert from_reconstruction(reconstruction).warnings


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


# What one factor decides -----------------------------------------------------------------------------------------


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
