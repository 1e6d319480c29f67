import pytest
import torch

from geo4d.models.base import PREDICTORS, choose_device, load_predictor, require_multiple
from geo4d.types import Window
from tests.support.controls import stub


def window(height: int, width: int) -> Window:
    return Window(torch.zeros(2, height, width, 3), torch.arange(2), torch.arange(2).double(), 0, 10.0)


def test_sides_must_fit_the_network() -> None:
    assert require_multiple(window(32, 48), 16) == (32, 48)
    for size in ((32, 40), (24, 48)):
        with pytest.raises(ValueError, match=rf"multiples of 16, got {size[1]}x{size[0]}"):
            require_multiple(window(*size), 16)


def test_devices_that_are_not_here_are_named(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == "cpu"
    assert choose_device("cpu") == "cpu"
    with pytest.raises(ValueError, match=r"\(cpu.*\), got 'cuda:3'; see 'geo4d doctor'"):
        choose_device("cuda:3")
    for built, words in (
        ("12.8", "missing is a card or its driver"),
        (None, "missing is CUDA, as another build"),
    ):
        monkeypatch.setattr(torch.version, "cuda", built)
        with pytest.raises(ValueError, match=words):
            choose_device("gpu")


def test_an_accelerator_is_picked_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(None) == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    assert choose_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="cuda:2"):
        choose_device("cuda:2")


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=", ".join(PREDICTORS)):
        load_predictor("gpt")


def test_a_wrong_device_is_said_before_any_weights_are_read(tmp_path) -> None:
    with pytest.raises(ValueError, match="'abacus'"):
        load_predictor("tiny", weights=tmp_path / "missing", device="abacus")


def test_name_and_options_reach_the_family(monkeypatch) -> None:
    from geo4d.models.geometrycrafter import pipeline

    asked: dict[str, object] = {}
    model = stub()

    def load(name: str, **options):
        asked.update(name=name, **options)
        return model

    monkeypatch.setattr(pipeline, "load", load)
    options = {"weights": "w", "device": "cpu", "dtype": "bfloat16", "decode_chunk": 3}
    assert load_predictor("geometrycrafter-determ", **options) is model
    assert asked == {
        "name": "geometrycrafter-determ",
        "weights": "w",
        "device": "cpu",
        "dtype": "bfloat16",
        "decode_chunk": 3,
    }
