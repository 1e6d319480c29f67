"""The table of a batch."""

import builtins

import pytest

from geo4d.batch import summary as module
from geo4d.batch.summary import Summary, make_rows, require_table, save_markdown, save_parquet
from geo4d.errors import MissingExtraError

DONE = {
    "state": "done",
    "exit_code": 0,
    "reason": "",
    "tries": [],
    "seconds": 2.5,
    "frames": 4,
    "verdict": "usable",
    "source": "/v/a.mp4",
    "reliable_share": 1.0,
}
FAILED = {
    "state": "failed",
    "exit_code": 3,
    "reason": "no video | <b>",
    "tries": [{}, {}],
    "source": "/v/b.mp4",
}
RECORDS = {"a": DONE, "b": FAILED, "c": {"state": "pending", "exit_code": 70, "tries": [{}]}}


def test_only_clips_that_ended_have_a_row_and_unknown_values_are_missing() -> None:
    rows = make_rows(RECORDS)
    assert [row["clip"] for row in rows] == ["a", "b"]
    assert rows[1]["tries"] == 2
    assert rows[1]["frames"] is None


def test_parquet_keeps_types_and_what_is_missing(tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    save_parquet(tmp_path / "s.parquet", make_rows({"b": FAILED}))
    table = parquet.read_table(tmp_path / "s.parquet")
    assert str(table.schema.field("seconds").type) == "double"
    assert table.to_pylist()[0]["seconds"] is None
    assert table.to_pylist()[0]["reason"] == FAILED["reason"]


def test_markdown_puts_failures_first_and_stays_a_table(tmp_path) -> None:
    save_markdown(tmp_path / "s.md", make_rows(RECORDS))
    lines = (tmp_path / "s.md").read_text().splitlines()
    assert lines[0] == "# 2 clips: 1 done, 1 failed, 0 quarantined"
    assert lines[4].startswith("| b |")
    assert "no video \\| &lt;b>" in lines[4]
    assert lines[5].startswith("| a |")
    save_markdown(tmp_path / "s.md", make_rows(RECORDS), most=1)
    assert "first 1," in (tmp_path / "s.md").read_text()
    assert "| a |" not in (tmp_path / "s.md").read_text()


def test_the_table_is_written_now_and_then_and_at_the_end(tmp_path, monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    table = Summary(tmp_path, "md")
    table.update(lambda: {"a": DONE})
    table.update(lambda: RECORDS)
    assert "# 1 clips" in (tmp_path / "summary.md").read_text()
    clock[0] += 10
    table.update(lambda: RECORDS)
    assert "# 2 clips" in (tmp_path / "summary.md").read_text()
    table.update(dict, now=True)
    assert "# 0 clips" in (tmp_path / "summary.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.md"]


def test_without_pyarrow_the_extra_is_named_before_any_work(monkeypatch) -> None:
    usual = builtins.__import__

    def missing(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"--table md.*geo4d\[batch\]"):
        require_table("all")
    require_table("md")
