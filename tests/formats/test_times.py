import datetime

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.times import date_to_seconds, epoch_unit, is_time, load_frame_times, to_seconds


def load(tmp_path, text: str, unit: str | None = None):
    path = tmp_path / "times.txt"
    path.write_text(text)
    return load_frame_times(path, unit)


def test_tum_lines(tmp_path) -> None:
    found = load(
        tmp_path, "# color images\n# timestamp filename\n1305031102.17 rgb/1.png\n1305031102.2 rgb/2 b.png\n"
    )
    assert found.unit == "seconds"
    assert found.names == ("rgb/1.png", "rgb/2 b.png")
    np.testing.assert_allclose(found.times_s, [1305031102.17, 1305031102.2], rtol=0, atol=1e-7)


def test_an_association_of_tum_gives_the_picture(tmp_path) -> None:
    found = load(tmp_path, "1.0 rgb/a.png 1.01 depth/a.png\n2.0 rgb/b.png 2.02 depth/b.png\n")
    assert found.names == ("rgb/a.png", "rgb/b.png")
    assert found.times_s.tolist() == [1.0, 2.0]


def test_euroc_lines_are_nanoseconds_by_their_head(tmp_path) -> None:
    found = load(tmp_path, "#timestamp [ns],filename\n1403715273262142976,1403715273262142976.png\n")
    assert found.unit == "nanoseconds"
    assert found.names == ("1403715273262142976.png",)
    assert found.times_s[0] == 1403715273262142976 / 10**9  # divided as an integer


def test_kitti_dates(tmp_path) -> None:
    found = load(tmp_path, "2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.067\n")
    assert found.unit == "dates"
    assert found.names is None
    moment = datetime.datetime(2011, 9, 26, 13, 2, 25, tzinfo=datetime.UTC).timestamp()
    np.testing.assert_allclose(found.times_s, [moment + 0.964389445, moment + 1.067], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "unit"),
    [(1, "seconds"), (10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")],
)
def test_whole_numbers_since_1970_tell_their_unit(factor: int, unit: str) -> None:
    texts = [str(1_600_000_000 * factor), str(1_600_000_010 * factor)]
    seconds, found = to_seconds(texts)
    assert found == unit
    assert seconds.tolist() == [1.6e9, 1_600_000_010.0]


def test_other_numbers_are_seconds_and_a_stated_unit_wins() -> None:
    assert to_seconds(["0", "100", "250"])[0].tolist() == [0, 100, 250]
    assert to_seconds(["0", "100"], "milliseconds") == (pytest.approx([0, 0.1]), "milliseconds")
    assert to_seconds(["1600000000123.5"])[1] == "seconds"  # no whole number: no milliseconds since 1970
    assert epoch_unit(["1600000000", "12"]) is None
    assert epoch_unit([]) is None
    assert epoch_unit(["x"]) is None


def test_dates_with_and_without_separators() -> None:
    expected = datetime.datetime(2024, 2, 29, 23, 59, 7, tzinfo=datetime.UTC).timestamp()
    for text in ("20240229235907", "2024-02-29 23:59:07", "2024_02_29-23-59-07", "2024-02-29T23h59m07"):
        assert date_to_seconds(text) == expected, text
    assert date_to_seconds("20240229_235907.25") == expected + 0.25
    assert date_to_seconds("20230229235907") is None  # there was no such day
    assert date_to_seconds("1234") is None


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("1.5", True),
        ("-2e3", True),
        ("nan", False),
        ("inf", False),
        ("abc", False),
        ("2024-01-02 03:04:05", True),
    ],
)
def test_what_is_a_time(text: str, yes: bool) -> None:
    assert is_time(text) == yes


def test_a_byte_order_mark_blank_lines_and_comments_are_none_of_it(tmp_path) -> None:
    found = load(tmp_path, "\ufeff0.0\n\n0.5  # second\n# end\n1.0\n")
    assert found.times_s.tolist() == [0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds none"),
        ("# only this\n", "holds none"),
        ("1.0 a.png\n2.0\n", "line 2"),
        ("1.0\nabc\n", "line 2"),
        ("1.0\n2.0 b.png\n", "line 2"),
    ],
)
def test_lists_that_are_none(tmp_path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, text)


def test_a_missing_list_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="a list of times"):
        load_frame_times(tmp_path / "none.txt")
