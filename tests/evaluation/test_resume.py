import numpy as np
import pytest

from geo4d.evaluation import workers
from geo4d.evaluation.resume import hash_files
from tests.support.evaluated import evaluate_folder


def test_hashes_follow_the_content(dataset, plane):
    root, predictions = dataset
    before = {row["name"]: row["files"]["sha256"] for row in evaluate_folder(root, predictions)["sequences"]}
    np.savez(root / "bent" / "depth" / "000003.npz", depth=plane.depth[3] * 2)
    after = {row["name"]: row["files"]["sha256"] for row in evaluate_folder(root, predictions)["sequences"]}
    assert before["still"] == after["still"]
    assert before["bent"] != after["bent"]
    assert hash_files(plane) == {"count": 0, "sha256": None, "list": []}


def test_finished_sequences_are_not_computed_again(dataset, tmp_path, monkeypatch):
    root, predictions = dataset
    work = tmp_path / "parts"
    first = evaluate_folder(root, predictions, work=work)
    monkeypatch.setattr(workers, "run_sequence", lambda *_: pytest.fail("computed again"))
    assert evaluate_folder(root, predictions, work=work)["sequences"] == first["sequences"]
    monkeypatch.undo()
    # Another protocol is another result.
    other = evaluate_folder(root, predictions, work=work, protocol="metric")
    assert {row["name"]: row["abs_rel"] for row in other["sequences"]}["bent"] == pytest.approx(0.5, abs=1e-5)
    for file in work.iterdir():
        file.write_text("{")
    again = evaluate_folder(root, predictions, work=work)["mean"]  # damaged parts are computed again
    assert again["abs_rel"] == first["mean"]["abs_rel"]
