"""What must be beaten: rows with known answers, the control without a network, and the rows of a whole evaluation."""

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from geo4d.evaluation import predict
from geo4d.evaluation.baselines import BASELINES, METRICS, REGIONS, baseline_rows, evidence
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import PROTOCOLS, DepthProtocol
from geo4d.evaluation.run import evaluate
from geo4d.evaluation.score import score
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.evaluation.tables import baseline_table, confidence_table, result_table
from geo4d.types import Reconstruction
from tests.support.controls import slab, stub, window


def guess(sequence, maps, **changes):
    fields = {"frames": np.arange(sequence.num_frames), "size": sequence.size, "maps": maps, **changes}
    return Predicted(**fields)


def left_half(sequence, depth):
    found = torch.from_numpy(depth.copy())
    found[:, :, sequence.size[1] // 2 :] = torch.nan
    return evidence(sequence, dict(enumerate(found)))


def test_every_row_has_every_metric_in_every_region(plane):
    rows = baseline_rows(plane, DepthProtocol(), {"whole": guess(plane, plane.depth)})
    assert set(rows) == {"whole", *BASELINES}
    for row in rows.values():
        assert set(row) == {metric + region for metric in METRICS for region in REGIONS}
    assert rows["whole"]["delta_125"] == 1
    assert rows["whole"]["delta_125_with_evidence"] is None  # there is none
    assert rows["whole"]["delta_125_without_evidence"] == 1
    assert set(rows["control"].values()) == {None}


def test_regions_follow_the_evidence_and_share_one_factor(plane):
    wrong = plane.depth.copy()
    wrong[:, :, 16:] *= 1.5
    rows = baseline_rows(
        plane,
        DepthProtocol(),
        {"whole": guess(plane, wrong / 7), "evidence": left_half(plane, 3 * plane.depth)},
    )
    whole, found = rows["whole"], rows["evidence"]
    # One factor for both halves: they are a factor of 1.5 apart, however it is chosen.
    apart = (1 + whole["abs_rel_without_evidence"]) / (1 - whole["abs_rel_with_evidence"])
    assert apart == pytest.approx(1.5, rel=0.02)
    assert found["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert found["abs_rel_with_evidence"] == found["abs_rel"]
    assert found["coverage"] == 1  # of its own pixels
    assert found["delta_125_without_evidence"] is None
    # The same numbers as the score itself gives under the same alignment.
    plain = PROTOCOLS["median"]
    protocol = replace(plain, depth=replace(plain.depth, alignment="median_ratio"))
    whole_score = score(guess(plane, wrong / 7), plane, protocol).metrics
    for metric in METRICS:
        assert whole[metric] == pytest.approx(whole_score[metric], abs=1e-12)


def test_missing_pixels_are_wrong_in_their_region(plane):
    maps = plane.depth.copy()
    maps[:, :, 24:] = np.nan
    rows = baseline_rows(
        plane, DepthProtocol(), {"whole": guess(plane, maps), "evidence": left_half(plane, plane.depth)}
    )
    assert rows["whole"]["delta_125_with_evidence"] == 1
    assert rows["whole"]["delta_125_without_evidence"] == pytest.approx(0.5)
    assert rows["whole"]["coverage_without_evidence"] == pytest.approx(0.5)


def test_constant_and_ramp(plane):
    depth = np.full_like(plane.depth, 2.0)
    depth[6:] = 3.0
    rows = baseline_rows(replace(plane, depth=depth), DepthProtocol(), {})
    # The factor is the lower median, 2: half of all pixels are wrong by a third.
    assert rows["constant"]["delta_125"] == pytest.approx(0.5)
    assert rows["constant"]["abs_rel"] == pytest.approx(1 / 6)
    ground = 1 / (0.1 + 0.02 * np.arange(24, dtype=np.float32))[:, None]
    ground = np.broadcast_to(ground, plane.depth.shape).copy()
    rows = baseline_rows(replace(plane, depth=ground), DepthProtocol(), {})
    assert rows["ramp"]["abs_rel"] < 1e-3
    assert rows["constant"]["abs_rel"] > 0.3


def test_pictures_affine_forgives_a_scale_and_shift_per_frame(plane):
    generator = np.random.default_rng(0)
    a = generator.uniform(0.5, 2, (12, 1, 1))
    b = generator.uniform(0, 0.3, (12, 1, 1))
    warped = (1 / (a / plane.depth + b)).astype(np.float32)
    rows = baseline_rows(plane, DepthProtocol(), {"pictures": guess(plane, warped)})
    assert rows["pictures_affine"]["abs_rel"] < 1e-3
    assert rows["pictures"]["abs_rel"] > 0.1


@pytest.fixture
def pretended(plane, monkeypatch):
    """``evaluate synthetic`` with a known sequence, a stub for the model, and runs that return what is set here."""
    runs = []
    moving = np.zeros(plane.depth.shape, np.float32)

    def reconstruct(frames, *, model, **settings):
        name = model if isinstance(model, str) else model.info.name
        with_evidence = settings.get("motion", True)
        runs.append((name, with_evidence))
        if with_evidence and name == "stub":
            given = slab()
            model.predict(window(count=4), seed=0, evidence=given)
        maps = plane.depth * (1 if with_evidence else 1 + 0.2 * np.sin(np.arange(32)))
        return Reconstruction(
            depth=maps.astype(np.float32),
            confidence=np.full_like(plane.depth, 0.9),
            intrinsics=plane.intrinsics,
            times_s=plane.times_s,
            source_frames=np.arange(len(frames)),
            c2w=plane.c2w,
            dynamic=moving,
            provenance={"model": {"name": "stub", "weights_sha256": "ab" * 32}},
        )

    monkeypatch.setattr(import_module("geo4d.run.reconstruct"), "reconstruct", reconstruct)
    monkeypatch.setattr(import_module("geo4d.run.inputs"), "load_predictor", lambda *_, **__: stub())
    monkeypatch.setattr(predict, "load_sequence", lambda *_: plane)
    return runs


def test_evaluation_has_the_rows(pretended):
    result = evaluate("synthetic", None, EvaluationSettings(limit=1))
    assert pretended == [("stub", True), ("stub", False), ("control", True)]
    (row,) = result["sequences"]
    assert set(row["baselines"]) == set(BASELINES)
    assert row["whole_median"]["abs_rel"] < 1e-6
    assert row["delta_125_with_evidence"] == 1
    assert row["baselines"]["pictures"]["abs_rel"] > 0.05
    assert row["baselines"]["evidence"]["coverage"] == 1
    assert result["baselines"]["control"]["abs_rel"] < 1e-6
    assert result["baselines"]["constant"]["delta_125"] == row["baselines"]["constant"]["delta_125"]
    assert result["confidence"]["gap"] == pytest.approx(0.1, abs=1e-4)
    assert "confidence_sample" not in row
    assert json.loads(json.dumps(result)) == result
    text = baseline_table(result).render()
    for name in ("whole", *BASELINES):
        assert f"{plane_name(row)}: {name}" in text
        assert f"mean: {name}" in text
    assert "Spearman" in confidence_table(result).render()
    assert "fy" in result_table(result).columns


def plane_name(row):
    return row["name"]


def test_rows_can_be_left_out_and_models_without_evidence_have_fewer(pretended, monkeypatch):
    result = evaluate("synthetic", None, EvaluationSettings(limit=1, baselines=False))
    assert pretended == [("stub", True)]  # the model that is held, not its name
    assert baseline_table(result) is None
    pretended.clear()
    monkeypatch.setattr(import_module("geo4d.run.inputs"), "load_predictor", lambda *_, **__: stub(None))
    result = evaluate("synthetic", None, EvaluationSettings(limit=1))
    assert len(pretended) == 1  # the model sees pictures alone: the whole is that row
    rows = result["sequences"][0]["baselines"]
    assert rows["pictures"]["delta_125"] == 1
    assert rows["control"]["delta_125"] is None
    assert rows["evidence"]["delta_125"] is None
