"""Predictors of other packages."""

import sys

import pytest

from geo4d.errors import PluginError
from geo4d.models.base import load_predictor
from geo4d.models.plugins import plugin_names
from tests.support.packages import offer

GOOD = """
from geo4d.models.monodepth.network import FrameDepths
from geo4d.models.monodepth.pipeline import DepthPredictor, MonoDepthConfig

class Flat:
    scale_kind = "affine"
    def __call__(self, rgb):
        return FrameDepths(rgb.mean(-1))

def load(name, *, weights=None, device=None, dtype=None, max_side=64):
    return DepthPredictor(Flat(), name=name, licence="none", config=MonoDepthConfig(max_side=max_side))

def poor(name, **words):
    return object()
"""


@pytest.fixture
def flat(tmp_path, monkeypatch):
    offer(tmp_path / "site", "geo4d.predictors", "flat", "flat_pack:load", GOOD, monkeypatch)
    yield
    sys.modules.pop("flat_pack", None)


def test_an_installed_predictor_by_its_name(flat):
    assert plugin_names(["tiny"]) == ["flat"]
    made = load_predictor("flat", max_side=32)
    assert made.info.name == "flat"
    assert made.size_for((320, 640)) == (16, 32)
    assert load_predictor("tiny").info.name == "tiny"


def test_any_function_by_its_place(flat):
    assert load_predictor("flat_pack:load").info.name == "flat_pack:load"


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("flat_pack:poor", PluginError, "got object without memory_bytes, predict, prepare, size_for, info"),
        ("flat_pack:nothing", PluginError, "AttributeError"),
        ("os:system", PluginError, "expected os:system to be a function load"),
        ("json:loads", PluginError, "expected json:loads to be a function load"),
        ("no_such_package.module:load", PluginError, "check that the module is installed"),
        ("nothing", ValueError, "expected one of tiny,.*flat, hf:NAME_OR_FOLDER or package.module:load"),
        ("C:/some/file", ValueError, "as the model, got 'C:/some/file'"),
    ],
)
def test_what_cannot_be_used_is_told(flat, name, error, says):
    with pytest.raises(error, match=says):
        load_predictor(name)
