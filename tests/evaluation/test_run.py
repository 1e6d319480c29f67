"""The runner: results carry protocol and hashes, resume by sequence, several processes, nothing dropped silently."""

import json
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.truth import BoxWorld, TruthPredictor
from geo4d.errors import GeometryError, InputError
from geo4d.evaluation import predict, run
from geo4d.evaluation.ablations import PlainPointDecoder, WithoutModalities, from_prediction, variants
from geo4d.evaluation.average import summarise
from geo4d.evaluation.benchmarks import BENCHMARKS
from geo4d.evaluation.layouts import Layout, benchmark_names
from geo4d.evaluation.protocols import PROTOCOLS
from geo4d.evaluation.published import PUBLISHED
from geo4d.evaluation.resume import hash_files
from geo4d.evaluation.run import evaluate
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.evaluation.tables import ablation_table, result_table, with_coverage
from geo4d.evaluation.trivial import load_template
from geo4d.formats.cameras import save_tum
from geo4d.formats.images import save_image
from geo4d.models.base import PredictorInfo
from geo4d.types import Prediction, Reconstruction


@pytest.fixture
def dataset(plane, tmp_path):
    """Two sequences in the simple layout, one of them with a still camera, and predictions for both."""
    root, predictions = tmp_path / "data", tmp_path / "predictions"
    for name in ("bent", "still"):
        clip, guess = root / name, predictions / name
        (clip / "depth").mkdir(parents=True)
        (guess / "depth").mkdir(parents=True)
        c2w = plane.c2w if name == "bent" else np.tile(np.eye(4), (12, 1, 1))
        for t in range(12):
            save_image(clip / "rgb" / f"{t:06d}.png", plane.rgb[t])
            np.savez(clip / "depth" / f"{t:06d}.npz", depth=plane.depth[t])
            np.savez(guess / "depth" / f"{t:06d}.npz", depth=plane.depth[t] * 0.5)
        (clip / "intrinsics.txt").write_text("30 30 16 12")
        (clip / "clip.json").write_text('{"fps": 10}')
        save_tum(clip / "poses.txt", plane.times_s, c2w)
        save_tum(guess / "poses.txt", plane.times_s, c2w)
    return root, predictions


def settings(predictions, **changes):
    return EvaluationSettings(**{"model": None, "predictions": predictions, **changes})


def test_result_has_protocol_hashes_means_and_what_is_degenerate(dataset):
    root, predictions = dataset
    result = _evaluate(root, predictions)
    assert result["protocol"]["name"] == "median"
    assert result["num_sequences"] == 2
    rows = {row["name"]: row for row in result["sequences"]}
    assert rows["bent"]["abs_rel"] < 1e-6
    assert rows["bent"]["ate"] < 1e-6
    assert rows["still"]["ate"] is None
    assert result["degenerate"] == [
        {"name": "still", "part": "poses", "reason": "no motion"},
        {"name": "still", "part": "scale", "reason": "not determined: 0.0 px of parallax"},
    ]
    assert result["counts"]["ate"] == 1
    assert result["mean"]["ate"] == rows["bent"]["ate"]
    assert result["mean"]["delta_125"] == 1
    assert rows["bent"]["files"]["count"] == 12 * 2 + 3
    assert len(rows["bent"]["files"]["sha256"]) == 64
    assert "torch" in result["versions"]
    assert json.loads(json.dumps(result)) == result
    text = result_table(result).render()
    assert "degenerate: still, poses: no motion" in text
    assert "ATE over 1 of 2" in text


def _evaluate(root, predictions, work=None, **changes):
    return evaluate("folder", root, settings(predictions, **changes), work=work)


def test_hashes_follow_the_content(dataset, plane):
    root, predictions = dataset
    before = {row["name"]: row["files"]["sha256"] for row in _evaluate(root, predictions)["sequences"]}
    np.savez(root / "bent" / "depth" / "000003.npz", depth=plane.depth[3] * 2)
    after = {row["name"]: row["files"]["sha256"] for row in _evaluate(root, predictions)["sequences"]}
    assert before["still"] == after["still"]
    assert before["bent"] != after["bent"]
    assert hash_files(plane) == {"count": 0, "sha256": None, "list": []}


def test_finished_sequences_are_not_computed_again(dataset, tmp_path, monkeypatch):
    root, predictions = dataset
    work = tmp_path / "parts"
    first = _evaluate(root, predictions, work=work)
    monkeypatch.setattr(run, "run_sequence", lambda *_: pytest.fail("computed again"))
    assert _evaluate(root, predictions, work=work)["sequences"] == first["sequences"]
    monkeypatch.undo()
    # Another protocol is another result.
    other = _evaluate(root, predictions, work=work, protocol="metric")
    assert {row["name"]: row["abs_rel"] for row in other["sequences"]}["bent"] == pytest.approx(0.5, abs=1e-5)
    for file in work.iterdir():
        file.write_text("{")
    again = _evaluate(root, predictions, work=work)["mean"]  # damaged parts are computed again
    assert again["abs_rel"] == first["mean"]["abs_rel"]


@pytest.mark.slow
def test_processes_give_the_same_numbers(dataset):
    root, predictions = dataset
    names = ("bent", "still")
    paths = {name: ("folder", str(root / name)) for name in names}
    plan = Layout("any", "any", PROTOCOLS["median"], ("abs_rel",), paths)
    alone = dict(run._run_all(plan, settings(predictions), list(names)))
    shared = dict(run._run_all(plan, settings(predictions, jobs=2), list(names)))
    for name in names:
        assert alone[name]["abs_rel"] == shared[name]["abs_rel"]
        assert alone[name]["files"] == shared[name]["files"]


def test_selection_limits_and_unknown_names(dataset):
    root, predictions = dataset
    assert [row["name"] for row in _evaluate(root, predictions, sequences=("still",))["sequences"]] == [
        "still"
    ]
    assert _evaluate(root, predictions, limit=1)["num_sequences"] == 1
    with pytest.raises(ValueError, match="bent, still"):
        _evaluate(root, predictions, sequences=("benched",))
    with pytest.raises(ValueError, match="synthetic"):
        evaluate("sintell", root, settings(predictions))
    with pytest.raises(ValueError, match="--root"):
        evaluate("sintel", None, settings(predictions))
    with pytest.raises(InputError, match="tartanair-office-sample"):
        evaluate("samples", root, settings(predictions))
    with pytest.raises(InputError, match=r"sintel\.is\.tue\.mpg\.de"):
        evaluate("sintel", root, settings(predictions))


@pytest.mark.parametrize(
    "wrong",
    [{"model": "tiny"}, {"predictions": None}, {"jobs": 0}, {"protocol": "none"}],
)
def test_nonsensical_settings(tmp_path, wrong):
    with pytest.raises(ValueError):
        settings(**{"predictions": tmp_path, **wrong})


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
    result = _evaluate(root, None, model="tiny")
    assert result["weights_sha256"] == "ab" * 32
    assert result["mean"]["abs_rel"] < 1e-6
    assert result["model"] == "tiny"


def test_a_model_without_geometry_is_all_wrong(dataset, plane, monkeypatch):
    root, _ = dataset
    monkeypatch.setattr(
        import_module("geo4d.run.reconstruct"), "reconstruct", fake_reconstruct(plane, fail=True)
    )
    result = _evaluate(root, None, model="tiny")
    assert len(result["failed"]) == 2
    assert result["mean"]["delta_125"] == 0
    assert result["mean"]["coverage"] == 0
    assert result["mean"]["abs_rel"] is None
    assert "failed, all wrong" in result_table(result).render()


def test_summary_counts_undetermined_values_out():
    mean, median, counts = summarise([{"a": 1.0, "n": "x"}, {"a": None}, {"a": 4.0}, {"a": 10.0, "b": None}])
    assert mean == {"a": 5.0, "b": None}
    assert median == {"a": 4.0, "b": None}
    assert counts == {"a": 3, "b": 0}


def test_template_looks_like_ground_below_sky():
    template = load_template()
    assert template.shape == (36, 64)
    rows = template.mean(1)
    assert rows[-1] > 2 * rows[0]
    assert np.isfinite(template).all()


# Tables --------------------------------------------------------------------------------------------------------------


def test_no_error_stands_without_coverage():
    for benchmark in BENCHMARKS.values():
        columns = with_coverage(benchmark.columns)
        for error, coverage in (
            ("abs_rel", "coverage"),
            ("point_rel", "point_coverage"),
            ("ate", "pose_coverage"),
        ):
            assert error not in columns or coverage in columns


@pytest.mark.parametrize("kind", ["text", "markdown", "latex", "html"])
def test_tables_in_every_format(dataset, kind):
    root, predictions = dataset
    result = {**_evaluate(root, predictions), "published": "geo4d/sintel-depth"}
    text = result_table(result).render(kind)
    assert "Geo4D" in text
    assert "0.2050" in text
    assert "Table 1" in text
    assert ("\\begin{tabular}" in text) == (kind == "latex")
    assert ("<table>" in text) == (kind == "html")
    assert "[published]" in text


def test_published_rows_are_complete():
    assert {name for name in PUBLISHED if name.startswith("ablation/")} == {
        f"ablation/{kind}" for kind in ("steps", "modalities", "stride", "vae")
    }
    assert sum(name.startswith("geometrycrafter/") for name in PUBLISHED) == 7
    for name, rows in PUBLISHED.items():
        for row in rows:
            assert row.source, name
            for metric, value in row.values.items():
                assert 0 < value < (4 if metric in ("rpe_rot_deg", "seconds_per_frame") else 1), (
                    name,
                    row.method,
                )
    for benchmark in BENCHMARKS.values():
        assert benchmark.published is None or benchmark.published in PUBLISHED
    geo4d = {row.method: row.values for row in PUBLISHED["geo4d/sintel-pose"]}["Geo4D"]
    assert geo4d == {"ate": 0.185, "rpe_trans": 0.063, "rpe_rot_deg": 0.547}
    assert len(set(benchmark_names())) == len(benchmark_names())


# Ablations -----------------------------------------------------------------------------------------------------------


def test_variants_follow_the_papers_tables():
    for kind in ("steps", "stride", "modalities", "vae"):
        names = set(variants(kind, {"seed": 0}))
        assert names <= {row.method for row in PUBLISHED[f"ablation/{kind}"]}
    assert variants("steps", {"seed": 3})["5 steps"] == ({"seed": 3, "num_steps": 5}, None)
    with pytest.raises(ValueError, match="stride"):
        variants("colour", {})


def prediction():
    return Prediction(
        frame_indices=torch.arange(2),
        times_s=torch.arange(2).double(),
        window_index=0,
        point_map=torch.ones(2, 4, 4, 3),
        disparity=torch.rand(2, 4, 4),
        ray_map=torch.ones(2, 4, 4, 6),
        ray_c2w=torch.eye(4).repeat(2, 1, 1),
    )


def test_a_modality_can_be_kept_alone():
    info = PredictorInfo("fake", "", "", "", 16, 4)
    common = {
        "info": info,
        "size_for": lambda size: size,
        "memory_bytes": lambda _: 0,
        "prepare": lambda _: {},
    }
    predictor = SimpleNamespace(predict=lambda *_, **__: prediction(), **common)
    only = WithoutModalities(predictor, "disparity")
    kept = only.predict(None, seed=0)
    assert kept.disparity is not None
    assert kept.point_map is None
    assert kept.ray_map is None
    assert only.size_for((3, 4)) == (3, 4)
    assert only.info.config == {"ablation": "only disparity"}
    rays = WithoutModalities(predictor, "ray_map+disparity").predict(None, seed=0)
    assert rays.point_map is None
    assert rays.ray_c2w is not None
    assert rays.size == (4, 4)
    with pytest.raises(ValueError, match="keep"):
        WithoutModalities(predictor, "colour")
    without = SimpleNamespace(predict=lambda *_, **__: replace(prediction(), disparity=None), **common)
    with pytest.raises(ValueError, match="disparity"):
        WithoutModalities(without, "disparity").predict(None)


def test_plain_decoder_has_one_spread():
    vae = SimpleNamespace(decode=lambda z: torch.ones(z.shape[0], 3, 8, 8), scale=2)
    decoded = PlainPointDecoder(vae).decode_with_uncertainty(torch.zeros(2, 4, 1, 1))
    assert decoded.shape == (2, 4, 8, 8)
    assert bool((decoded[:, 3] == 0).all())
    assert PlainPointDecoder(vae).scale == 2


def test_a_window_is_scored_as_the_network_left_it():
    guess = from_prediction(prediction())
    assert guess.quantity == "disparity"
    assert guess.scale_kind == "affine"
    assert guess.c2w.shape == (2, 4, 4)


def test_ablation_table_has_both(dataset):
    root, predictions = dataset
    result = {**_evaluate(root, predictions), "model": "tiny"}
    text = ablation_table("steps", {"1 step": result, "5 steps": result}).render()
    assert "1 step [published]" in text
    assert "s/frame" in text


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
