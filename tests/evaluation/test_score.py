"""Scoring of one sequence: coverage, degenerate parts, units, sizes, and predictors that are wrong in known ways."""

import numpy as np
import pytest

from geo4d.datasets.views import select
from geo4d.evaluation.predicted import from_reconstruction
from geo4d.evaluation.protocols import PROTOCOLS, geo4d
from geo4d.evaluation.score import score
from geo4d.types import Reconstruction
from tests.support.scored import truth


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


def test_one_frame(plane):
    single = select(plane, slice(0, 1))
    prediction = truth(
        plane, frames=np.arange(1), maps=plane.depth[:1], intrinsics=plane.intrinsics[:1], c2w=plane.c2w[:1]
    )
    result = score(prediction, single, geo4d())
    assert result.degenerate["poses"] == "one frame"
    assert result.metrics["abs_rel"] < 1e-5
    assert result.metrics["ate"] is None


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
