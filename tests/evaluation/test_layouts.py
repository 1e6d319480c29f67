import pytest

from geo4d.errors import InputError
from geo4d.evaluation.run import evaluate
from tests.support.evaluated import evaluate_folder, settings


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
