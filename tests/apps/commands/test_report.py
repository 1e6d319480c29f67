from geo4d.apps.cli import main
from geo4d.apps.commands.report import ReportOptions, run
from tests.support.stored import run_once


def test_the_page_lies_beside_the_result_unless_it_is_put_elsewhere(tmp_path, capsys) -> None:
    run_once(tmp_path / "out")
    assert run(ReportOptions(tmp_path / "out", num_frames=2)) == 0
    page = tmp_path / "out_report.html"
    assert f"wrote {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!")
    assert run(ReportOptions(tmp_path / "out", tmp_path / "b.html")) == 0
    assert (tmp_path / "b.html").read_text(encoding="utf-8").count("<img") > text.count(
        "<img"
    )  # 3 frames, not 2


def test_a_result_in_a_store_needs_a_place_for_its_page(capsys) -> None:
    assert main(["report", "s3://bucket/out"]) == 2
    assert "expected -o FILE.html with s3://bucket/out" in capsys.readouterr().err
