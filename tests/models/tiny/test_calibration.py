import json
from dataclasses import asdict

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.tiny.calibration import Calibration, SpreadMap, fit_spread_map
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.weights import load_model, save_model


def test_an_empty_map_changes_nothing() -> None:
    spread = torch.rand(7)
    assert torch.equal(SpreadMap()(spread), spread)


def test_a_map_goes_through_its_knots_and_keeps_the_ratio_outside() -> None:
    spread_map = SpreadMap((0.1, 1.0), (0.2, 5.0))
    found = spread_map(torch.tensor([0.05, 0.1, 0.1**0.5, 1.0, 3.0]))
    torch.testing.assert_close(found, torch.tensor([0.1, 0.2, 1.0, 5.0, 15.0]), rtol=1e-5, atol=1e-6)
    assert bool((spread_map(torch.linspace(0.01, 4, 200)).diff() > 0).all())
    one = SpreadMap((0.5,), (1.0,))
    torch.testing.assert_close(one(torch.tensor([0.1, 2.0])), torch.tensor([0.2, 4.0]))


def test_a_fit_finds_the_error_at_each_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(40_000, generator=generator) * 2 + 0.1
    # Laplace errors with a mean of three times the square of the spread.
    error = 3 * spread**2 * torch.empty(40_000).exponential_(generator=generator)
    fitted = fit_spread_map(spread, error)
    wanted = torch.tensor([0.4, 1.0, 1.8])
    torch.testing.assert_close(fitted(wanted), 3 * wanted**2, rtol=0.1, atol=0)


def test_a_spread_that_says_nothing_becomes_the_mean_error() -> None:
    generator = torch.Generator().manual_seed(0)
    spread, error = torch.rand(20_000, generator=generator) + 0.1, torch.rand(20_000, generator=generator)
    against = torch.where(spread > 0.5, error * 0.5, error)
    fitted = fit_spread_map(spread, against)
    assert bool((torch.tensor(fitted.seen).diff() >= 0).all())
    inside = fitted(torch.linspace(0.2, 1.0, 9))
    torch.testing.assert_close(inside, torch.full((9,), float(against.mean())), rtol=0.25, atol=0)


def test_nonsense_is_refused() -> None:
    for predicted, seen in (
        ((1.0,), ()),
        ((1.0, 0.5), (1.0, 2.0)),
        ((1.0, 2.0), (2.0, 1.0)),
        ((0.0, 1.0), (1.0, 2.0)),
    ):
        with pytest.raises(ValueError, match="expected"):
            SpreadMap(predicted, seen)
    with pytest.raises(ValueError, match="rays"):
        Calibration.from_dict({"rays": {"predicted": [], "seen": []}})


def test_the_weight_file_keeps_it(tmp_path) -> None:
    model = TinyModel(smallest_preset())
    model.calibration = Calibration(points=SpreadMap((0.1, 1.0), (0.3, 4.0)))
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").calibration == model.calibration
    assert Calibration.from_dict(json.loads(json.dumps(asdict(model.calibration)))) == model.calibration


def test_a_damaged_calibration_is_a_damaged_file(tmp_path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_model(TinyModel(smallest_preset()), path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(
        tensors, str(path), {**metadata, "calibration": '{"points": {"predicted": [2, 1], "seen": [1, 1]}}'}
    )
    with pytest.raises(CheckpointError, match="calibration"):
        load_model(path)
