import dataclasses
import json

import torch

from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.pipeline import (
    load,
)
from geo4d.models.tiny.weights import load_model, read_record, save_model


def test_weights_survive_the_file(tmp_path) -> None:
    model = TinyModel(smallest_preset())
    path = tmp_path / "model.safetensors"
    save_model(model, path, {"steps": 3})
    loaded = load_model(path)
    assert read_record(path) == {"steps": 3}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    predictor = load(weights=tmp_path, dtype="float32", num_steps=2)
    assert predictor.config.num_steps == 2
    assert len(predictor.info.weights_sha256) == 64
    json.dumps(dataclasses.asdict(predictor.info))
