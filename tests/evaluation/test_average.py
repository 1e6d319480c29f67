import pytest

from geo4d.evaluation.average import summarise


def test_undetermined_values_are_counted_out_and_never_zero() -> None:
    mean, median, count = summarise([{"a": 1.0, "b": None}, {"a": 4.0, "b": 2.0}, {"a": 10.0}])
    assert mean == {"a": 5.0, "b": 2.0}
    assert median == {"a": 4.0, "b": 2.0}
    assert count == {"a": 3, "b": 1}


def test_a_metric_that_no_sequence_determines_stays_named() -> None:
    mean, median, count = summarise([{"a": None}, {"a": None}])
    assert mean == median == {"a": None}
    assert count == {"a": 0}


def test_words_and_truths_are_no_metrics() -> None:
    mean, _, _ = summarise([{"name": "x", "degenerate": True, "frames": 4, "share": 0.5}])
    assert mean == {"frames": 4.0, "share": 0.5}


def test_small_differences_of_large_values_survive() -> None:
    mean, _, _ = summarise([{"a": 1e16}, {"a": 1.0}, {"a": -1e16}])
    assert mean["a"] == pytest.approx(1 / 3)
    assert summarise([]) == ({}, {}, {})
