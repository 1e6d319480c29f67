import json

from geo4d.evaluation.average import summarise
from geo4d.evaluation.tables import result_table
from tests.support.evaluated import evaluate_folder


def test_result_has_protocol_hashes_means_and_what_is_degenerate(dataset):
    root, predictions = dataset
    result = evaluate_folder(root, predictions)
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


def test_summary_counts_undetermined_values_out():
    mean, median, counts = summarise([{"a": 1.0, "n": "x"}, {"a": None}, {"a": 4.0}, {"a": 10.0, "b": None}])
    assert mean == {"a": 5.0, "b": None}
    assert median == {"a": 4.0, "b": None}
    assert counts == {"a": 3, "b": 0}
