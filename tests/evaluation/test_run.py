"""The runner: results carry protocol and hashes, resume by sequence, several processes, nothing dropped silently."""

import pytest

from geo4d.errors import InputError
from geo4d.evaluation import run
from geo4d.evaluation.layouts import Layout
from geo4d.evaluation.protocols import PROTOCOLS
from geo4d.evaluation.run import evaluate
from tests.support.evaluated import evaluate_folder, settings


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
    assert [row["name"] for row in evaluate_folder(root, predictions, sequences=("still",))["sequences"]] == [
        "still"
    ]
    assert evaluate_folder(root, predictions, limit=1)["num_sequences"] == 1
    with pytest.raises(ValueError, match="bent, still"):
        evaluate_folder(root, predictions, sequences=("benched",))
    with pytest.raises(ValueError, match="synthetic"):
        evaluate("sintell", root, settings(predictions))
    with pytest.raises(ValueError, match="--root"):
        evaluate("sintel", None, settings(predictions))
    with pytest.raises(InputError, match="tartanair-office-sample"):
        evaluate("samples", root, settings(predictions))
    with pytest.raises(InputError, match=r"sintel\.is\.tue\.mpg\.de"):
        evaluate("sintel", root, settings(predictions))
