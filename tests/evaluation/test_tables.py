import pytest

from geo4d.evaluation.benchmarks import BENCHMARKS
from geo4d.evaluation.tables import ablation_table, result_table, with_coverage
from tests.support.evaluated import evaluate_folder


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
    result = {**evaluate_folder(root, predictions), "published": "geo4d/sintel-depth"}
    text = result_table(result).render(kind)
    assert "Geo4D" in text
    assert "0.2050" in text
    assert "Table 1" in text
    assert ("\\begin{tabular}" in text) == (kind == "latex")
    assert ("<table>" in text) == (kind == "html")
    assert "[published]" in text


def test_ablation_table_has_both(dataset):
    root, predictions = dataset
    result = {**evaluate_folder(root, predictions), "model": "tiny"}
    text = ablation_table("steps", {"1 step": result, "5 steps": result}).render()
    assert "1 step [published]" in text
    assert "s/frame" in text
