import sys
from importlib.metadata import EntryPoint

import pytest

from geo4d.errors import PluginError
from geo4d.plugins import entry
from tests.support.packages import offer


def test_points_are_found_without_loading(tmp_path, monkeypatch):
    offer(tmp_path, "geo4d.predictors", "mine", "mine_pack:load", "raise SystemError('loaded')", monkeypatch)
    sys.modules.pop("mine_pack", None)
    points = entry.plugin_points(entry.PREDICTORS, "a predictor", ["tiny"])
    assert "mine" in points
    assert "mine" not in entry.plugin_points(entry.READERS, "a reader", [])
    assert entry.package_of(points["mine"]) == "mine-pack 1.2"
    with pytest.raises(
        PluginError, match=r"the predictor 'mine' of the package mine-pack 1\.2.*SystemError: loaded"
    ):
        entry.load_point(points["mine"], "the predictor", None, "a function")


def test_a_known_name_stays_ours(tmp_path, monkeypatch, caplog):
    offer(tmp_path, "geo4d.readers", "tum", "tum_pack:X", "X = 1", monkeypatch)
    assert "tum" not in entry.plugin_points(entry.READERS, "a reader", ["tum"])
    assert "tum-pack 1.2 offers a reader 'tum', which geo4d has already" in caplog.text


def test_the_wrong_kind_is_told():
    point = EntryPoint("x", "math:pi", "geo4d.readers")
    with pytest.raises(
        PluginError, match="expected math:pi of the package unknown to be a reader, got float"
    ):
        entry.load_point(point, "the reader", str, "a reader")
    with pytest.raises(PluginError, match="to be a function, got float"):
        entry.load_point(point, "the predictor", None, "a function")
    assert entry.load_point(point, "the number", float, "a number") == pytest.approx(3.14159, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no_such_module:load", "ModuleNotFoundError"),
        ("math:load", "AttributeError"),
        ("math:pi", "to name a function, got float"),
    ],
)
def test_a_named_attribute_that_cannot_be_used(text, says):
    with pytest.raises(PluginError, match=says):
        entry.load_named(text, "a function")
    assert entry.load_named("math:sqrt", "a function")(4) == 2
