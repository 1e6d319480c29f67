"""Tables of the report; the rows of windows are tested with the page."""

from geo4d.viewer.tables import table, value_html


def test_values_are_escaped_and_nested() -> None:
    text = value_html({"a <b>": {"c": [1, 2]}, "d": None, "e": True, "f": 0.123456789, "g": [{"x": 1}]})
    assert "<b>" not in text
    assert "a &lt;b&gt;" in text
    assert "<td>[1, 2]</td>" in text
    assert "<td>-</td>" in text
    assert "<td>yes</td>" in text
    assert "0.12346" in text
    assert text.count("<table>") == 3
    assert value_html("<i>") == "&lt;i&gt;"
    assert len(value_html(list(range(1000)))) < 410


def test_a_table_has_all_columns() -> None:
    text = table([{"a": 1}, {"b": 2}])
    assert "<th>a</th><th>b</th>" in text
    assert "<tr><td>1</td><td></td></tr>" in text
    assert table([1, 2]) == "[1, 2]"
