"""Training steps on a device that is not there: nothing lies elsewhere, and the host waits only where it must."""

from dataclasses import replace

import pytest
import torch

from benchmarks.on_gpu.networks import geo4d_config, geo4d_constants, random_weights
from benchmarks.on_gpu.training import crafter_windows, geo4d_batch
from geo4d.models.geo4d.weights import make_parts
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.training.full import Geo4DDiffusion, Geo4DPointDecoding
from geo4d.training.tasks.tiny.tasks import DiffusionConfig, TinyDepth, TinyDiffusion
from tests.support.fake_device import DEVICE, FakeDevice, FakeTensor

CPU = torch.device("cpu")


def both(task: torch.nn.Module, batch) -> tuple[float, float, dict[str, int]]:
    """The loss on the CPU, on the device, and where the host waited."""
    with torch.no_grad():
        here = float(task(batch)[0])
        with FakeDevice() as device:
            task.to(DEVICE)
            moved = batch.to(DEVICE)
            device.waits.clear()
            loss, _ = task(moved)
            waits = dict(device.waits)
            assert isinstance(loss, FakeTensor)
            return here, float(loss), waits


def places(waits: dict[str, int]) -> set[str]:
    return {place.rpartition(":")[0] for place in waits}


def geo4d_task() -> Geo4DDiffusion:
    config = geo4d_config(True)
    parts = {name: random_weights(m, CPU) for name, m in make_parts(config, ["unet", "vae"]).items()}
    return Geo4DDiffusion(
        parts["unet"], parts["vae"], geo4d_constants(config, CPU), config, ("disparity", "points")
    )


def test_geo4d_diffusion_waits_only_for_the_range_of_a_map() -> None:
    here, there, waits = both(geo4d_task(), geo4d_batch(2, (64, 64)))
    assert there == pytest.approx(here, rel=1e-5)
    # A quantile over the valid pixels needs to know how many there are, once for the points and once for the disparity.
    assert places(waits) == {"geo4d/models/geo4d/modalities.py"}
    assert sum(waits.values()) == 2


def test_geo4d_point_decoding() -> None:
    vae = random_weights(make_parts(geo4d_config(True), ["point_vae"])["point_vae"], CPU)
    here, there, waits = both(Geo4DPointDecoding(vae), geo4d_batch(2, (64, 64)))
    assert there == pytest.approx(here, rel=1e-5)
    assert places(waits) == {"geo4d/models/geo4d/modalities.py"}


@pytest.mark.parametrize("kind", [TinyDiffusion, TinyDepth])
def test_tiny(kind) -> None:
    torch.manual_seed(0)
    model = TinyModel(smallest_preset())
    with torch.no_grad():
        model.codec.disparity_basis.normal_()
        model.codec.point_basis.normal_()
    task = kind(model, DiffusionConfig()) if kind is TinyDiffusion else kind(model)
    batch = geo4d_batch(2, (32, 48))
    batch = replace(
        batch,
        evidence_disparity=1 / batch.depth[:, :, ::2, ::2].clamp(max=50),
        evidence_confidence=torch.full_like(batch.depth[:, :, ::2, ::2], 0.8),
        evidence_trust=torch.ones(1, 2),
    )
    here, there, _ = both(task, batch)
    assert there == pytest.approx(here, rel=1e-4)


def test_geometrycrafter_unet_never_waits_for_noise() -> None:
    pytest.importorskip("diffusers")
    from benchmarks.on_gpu.networks import crafter_networks
    from geo4d.training.tasks.geometrycrafter.denoising import Denoising
    from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
    from geo4d.training.tasks.geometrycrafter.networks import FrozenNetworks, smallest_sizes

    networks = crafter_networks(CPU, True)
    frozen = FrozenNetworks(networks["image_vae"], networks["image_encoder"], networks["point_map_vae"])
    task = Denoising(networks["unet"], smallest_sizes().unet_for("diff"), frozen, "diff", FolderPlan(None))
    here, there, waits = both(task, crafter_windows(2, (64, 64), True))
    assert there == pytest.approx(here, rel=1e-4)
    assert "geo4d/training/tasks/geometrycrafter/denoising.py" not in places(waits)
    assert "geo4d/training/tasks/geometrycrafter/losses.py" not in places(waits)
