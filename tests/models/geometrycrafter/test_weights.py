import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.models.geometrycrafter import weights
from geo4d.models.geometrycrafter.config import GeometryCrafterConfig
from geo4d.models.geometrycrafter.weights import check_system, load_system

CONFIG = GeometryCrafterConfig(unet_dtype="float32")


def test_every_tensor_arrives(checkpoint, golden_folder, small):
    system = load_system(checkpoint, "determ", CONFIG)
    expected = small.make_unet(golden_folder, "determ").state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in system.unet.state_dict().items())
    assert system.image_vae.decoder is None
    encoder = small.make_image_encoder(golden_folder)
    expected, found = encoder.state_dict(), system.image_encoder.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 64, 64), (224, 224))
    # Where a weight lies in memory (here: in the file) decides on some processors which kernel multiplies it.
    for weight in system.image_encoder.parameters():
        weight.data = weight.data.clone()
    with torch.no_grad():
        reference, answer = encoder(image).image_embeds, system.image_encoder(image).image_embeds
    assert torch.equal(answer, reference)
    assert len(check_system(checkpoint, "determ")[0]) == 64


def test_half_precision_copy_is_used_when_it_is_all_there_is(checkpoint):
    file = checkpoint / "svd" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {key: tensor.half() for key, tensor in load_tensors(file).items()}
    file.unlink()
    save_file(tensors, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    before, checked = check_system(checkpoint, "determ")
    assert checked.compared == {"unknown": 9}
    system = load_system(checkpoint, "determ", CONFIG)
    assert system.image_vae.quant_conv.weight.dtype == torch.float32
    (checkpoint / "svd" / "vae" / "extra.non_ema.safetensors").write_bytes(b"ignored")
    assert check_system(checkpoint, "determ")[0] == before


def load_tensors(file):
    from safetensors.torch import load_file

    return load_file(file)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_every_key_is_accounted_for(checkpoint, fault):
    file = checkpoint / "point_map_vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_tensors(file)
    if fault == "missing":
        del tensors["decoder.conv_in.bias"]
    elif fault == "unknown":
        tensors["surprise"] = torch.zeros(1)
    else:
        tensors["decoder.conv_in.bias"] = torch.zeros(3)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"point_map_vae.*{fault}"):
        load_system(checkpoint, "determ", CONFIG)


def test_what_is_missing_is_named(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="unet_diff"):
        load_system(checkpoint, "diff", CONFIG)
    with pytest.raises(CheckpointError, match="models pull"):
        load_system(tmp_path / "nowhere", "diff", CONFIG)
    (checkpoint / "unet_determ" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_system(checkpoint, "determ", CONFIG)
    (checkpoint / "point_map_vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        check_system(checkpoint, "determ")


def test_other_schedulers_are_refused():
    with pytest.raises(ValueError, match="scheduler"):
        weights.SchedulerConfig(prediction_type="epsilon")


def test_pulled_files_lie_where_they_are_looked_for():
    from geo4d.models.store.sources import SOURCES

    hub = SOURCES["geometrycrafter"].hub
    folders = {f"{source.folder}/{pattern}" for source in hub for pattern in source.patterns}
    for place in (
        "/unet_diff",
        "/unet_determ",
        "/point_map_vae",
        "svd/vae",
        "svd/image_encoder",
        "moge/model.pt",
    ):
        assert any(entry.startswith(place) for entry in folders)


@pytest.mark.parametrize("module", ["unet", "vae"])
def test_a_missing_library_is_named(module, monkeypatch):
    import importlib.util
    import sys

    source = importlib.util.find_spec(f"geo4d.models.geometrycrafter.{module}").origin
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    spec = importlib.util.spec_from_file_location("copy_without_the_library", source)
    with pytest.raises(MissingExtraError, match=r"geo4d\[geometrycrafter\]"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_config_checks_its_values():
    for wrong in (
        {"num_steps": 0}, {"overlap": 110}, {"decode_overlap": 8}, {"decode_tile": 60}, {"height": 64},
        {"height": 65, "width": 64}, {"tile_overlap": 0.6}, {"decode_frames_at_once": 0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(CONFIG, **wrong)
