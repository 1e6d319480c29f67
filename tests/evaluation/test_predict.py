from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from geo4d.errors import GeometryError
from geo4d.evaluation import predict
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.evaluation.tables import result_table
from geo4d.types import Reconstruction
from tests.support.evaluated import evaluate_folder
from tests.support.truth import BoxWorld, TruthPredictor


def fake_reconstruct(plane, fail=False):
    def reconstruct(frames, **_):
        if fail:
            raise GeometryError("no window gave usable geometry")
        return Reconstruction(
            depth=plane.depth,
            confidence=np.ones_like(plane.depth),
            intrinsics=plane.intrinsics,
            times_s=plane.times_s,
            source_frames=np.arange(len(frames)),
            c2w=plane.c2w,
            provenance={"model": {"name": "fake", "weights_sha256": "ab" * 32}},
        )

    return reconstruct


def test_a_model_runs_and_its_weights_are_recorded(dataset, plane, monkeypatch):
    root, _ = dataset
    monkeypatch.setattr(import_module("geo4d.run.reconstruct"), "reconstruct", fake_reconstruct(plane))
    result = evaluate_folder(root, None, model="tiny")
    assert result["weights_sha256"] == "ab" * 32
    assert result["mean"]["abs_rel"] < 1e-6
    assert result["model"] == "tiny"


def test_a_model_without_geometry_is_all_wrong(dataset, plane, monkeypatch):
    root, _ = dataset
    monkeypatch.setattr(
        import_module("geo4d.run.reconstruct"), "reconstruct", fake_reconstruct(plane, fail=True)
    )
    result = evaluate_folder(root, None, model="tiny")
    assert len(result["failed"]) == 2
    assert result["mean"]["delta_125"] == 0
    assert result["mean"]["coverage"] == 0
    assert result["mean"]["abs_rel"] is None
    assert "failed, all wrong" in result_table(result).render()


def test_a_model_sees_the_times_of_the_data_set(plane):
    """Dropped frames leave gaps; a constant rate in their place would make every later motion too fast."""
    times_s = np.cumsum([0.1, 0.1, 0.1, 0.7, *[0.1] * 8])
    sequence = replace(plane, times_s=times_s)
    seen = {}

    class Watching(TruthPredictor):
        def predict(self, window, **rest):
            seen.update(zip(window.frame_indices.tolist(), window.times_s.tolist(), strict=True))
            return super().predict(window, **rest)

    model = Watching(BoxWorld(plane.size), length=12, stride=12)
    predict._reconstructed(sequence, model, EvaluationSettings(model="any"))
    np.testing.assert_allclose([seen[t] for t in range(12)], times_s)
    predict._reconstructed(sequence, model, EvaluationSettings(model="any", model_settings={"fps": 20.0}))
    np.testing.assert_allclose([seen[t] for t in range(12)], np.arange(12) / 20)


@pytest.mark.parametrize(("model", "device"), [("tiny", "mps"), ("moge", "cpu")])
def test_an_evaluation_takes_the_device_that_a_run_of_the_model_takes(model, device, monkeypatch):
    asked = []
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("geo4d.run.inputs.load_model", lambda *given: asked.append(given[3]))
    predict.hold_model(EvaluationSettings(model=model))
    assert asked == [device]
