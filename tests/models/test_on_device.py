"""Full predictors on a device that is not there: everything lies on it, and the host waits only where maps are read."""

import types
from typing import Any

import pytest
import torch

from benchmarks.on_gpu.networks import geo4d_predictor, moge_prior, window
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.moge.recover import recover_focal_shift
from tests.support.fake_device import DEVICE, FakeDevice

CPU = torch.device("cpu")
SIZE = (64, 64)


def card(monkeypatch: pytest.MonkeyPatch, gib: int) -> None:
    properties = types.SimpleNamespace(name="made up", total_memory=gib * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *unused: properties)


def waits_in(device: FakeDevice, *endings: str) -> int:
    return sum(count for place, count in device.waits.items() if place.partition(":")[0].endswith(endings))


def assert_predictions_agree(found: Any, reference: Any) -> None:
    assert found.tensors().keys() == reference.tensors().keys()
    for name, value in reference.tensors().items():
        other = found.tensors()[name]
        assert other.device.type == "cpu"
        if value.is_floating_point():
            torch.testing.assert_close(other, value, atol=1e-4, rtol=1e-4)


def test_geo4d_waits_for_its_four_maps_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, 80)
    views = [window(16, SIZE, index) for index in range(2)]
    reference = geo4d_predictor(CPU, "float32", True).predict_batch(views, seed=0)
    with FakeDevice() as device:
        predictor = geo4d_predictor(CPU, "float32", True)
        predictor = Geo4DPredictor(
            predictor.config, predictor.unet, predictor.vae, predictor.point_vae, predictor.constants,
            options=predictor.options, device=DEVICE,
        )  # fmt: skip
        predictor.predict_batch(views[:1], seed=0)
        device.waits.clear()
        found = predictor.predict_batch(views, seed=0)
        assert sum(device.waits.values()) == 4 * len(views)
        assert predictor.info.windows_at_once == 4
    for one, other in zip(found, reference, strict=True):
        assert_predictions_agree(one, other)


@pytest.mark.parametrize(("gib", "frames", "windows"), [(80, 8, 4), (24, 4, 2), (12, 1, 1)])
def test_what_goes_together_follows_from_the_memory(monkeypatch, gib: int, frames: int, windows: int) -> None:
    from geo4d.models.devices import frames_at_once, windows_at_once

    card(monkeypatch, gib)
    assert (frames_at_once(DEVICE), windows_at_once(DEVICE)) == (frames, windows)
    assert (frames_at_once(CPU), windows_at_once(CPU)) == (1, 1)


def test_the_codec_stays_in_float32_beside_a_float16_network() -> None:
    predictor = geo4d_predictor(CPU, "float16", True)
    assert predictor.unet.conv_in.weight.dtype == torch.float16
    for vae in (predictor.vae, predictor.point_vae):
        assert vae.decoder.conv_in.weight.dtype == torch.float32
    # Activations beyond 65,504 inside the codec reach the maps, instead of leaving masked pixels behind.
    with torch.no_grad():
        predictor.point_vae.decoder.conv_in.weight *= 1e6
    maps = predictor.decode(torch.randn(1, 16, 16, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(maps.point_map).all()


def test_focal_and_shift_of_eight_pictures_wait_no_more_than_those_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-0.5, 0.5, 70), torch.linspace(-0.7, 0.7, 90), indexing="ij")
    z = 2 + torch.rand(8, 70, 90, generator=generator)
    points = torch.stack([x * z, y * z, z - torch.rand(8, 1, 1, generator=generator)], -1)
    mask = torch.rand(8, 70, 90, generator=generator) < 0.7
    mask[3] = False
    reference = recover_focal_shift(points, mask)
    counts = []
    for number in (1, 8):
        with FakeDevice() as device:
            found = recover_focal_shift(points[:number].to(DEVICE), mask[:number].to(DEVICE))
            counts.append(sum(device.waits.values()))
            focal, shift = (values.cpu() for values in found)
        torch.testing.assert_close(focal, reference[0][:number], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(shift, reference[1][:number], rtol=1e-4, atol=1e-5)
    assert counts[1] <= counts[0] + 1 <= 5
    assert (focal[3], shift[3]) == (1.0, 0.0)


def test_moge_asks_its_network_for_a_batch_and_reads_the_maps_once() -> None:
    view = window(8, (56, 84))
    reference = moge_prior(CPU, True)(view)
    with FakeDevice() as device:
        prior = moge_prior(CPU, True, batch=8)
        prior.network.to(DEVICE)
        device.waits.clear()
        found = prior(view)
        assert waits_in(device, "moge/pipeline.py") == 4
    torch.testing.assert_close(found.points, reference.points, atol=1e-3, rtol=1e-3)
    assert torch.equal(found.mask, reference.mask)
