import json

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.base import Predictor
from geo4d.models.moge.pipeline import MoGePrior, load
from geo4d.models.moge.weights import load_moge
from geo4d.types import EvidenceMaps, Prior, Window


def window_of(rgb):
    frames = torch.arange(len(rgb))
    return Window(rgb, frames, frames.double(), 0, 1.0)


def test_predictor_and_prior(checkpoint):
    predictor = load("moge", weights=checkpoint, device="cpu")
    assert isinstance(predictor, Predictor)
    assert isinstance(predictor.prior, Prior)
    window = window_of(torch.rand(2, 41, 60, 3))
    prediction = predictor.predict(window, seed=0)
    assert prediction.point_map.shape == (2, 41, 60, 3)
    assert prediction.size == predictor.size_for((41, 60))
    assert prediction.point_frame == "camera"
    assert torch.isfinite(prediction.point_map).all()
    assert (prediction.point_map[..., 2][prediction.valid] > 0).all()
    maps = predictor.prior(window)
    assert torch.equal(maps.points, prediction.point_map)
    assert predictor.prepare([window]) == {}
    assert predictor.size_for((1500, 2048)) == (750, 1024)
    assert predictor.memory_bytes((448, 768)) > 0
    with pytest.raises(ValueError, match="no evidence"):
        predictor.predict(window, seed=0, evidence=EvidenceMaps(maps.points, maps.mask))


def test_dtype_reaches_the_network(checkpoint):
    predictor = load("moge", weights=checkpoint, device="cpu", dtype="bfloat16", resolution_level=0)
    assert predictor.prior.network.backbone.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert predictor.prior.network.backbone.norm.weight.dtype == torch.float32
    assert predictor.info.config["resolution_level"] == 0


def test_unknown_options_are_refused(checkpoint):
    with pytest.raises(ValueError, match="num_steps"):
        load("moge", weights=checkpoint, num_steps=3)


def test_code_in_a_file_is_never_run(checkpoint, tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({json.dumps(str(tmp_path / 'ran'))}, 'w')",))

    torch.save({"model_config": {}, "model": Trap()}, checkpoint)
    with pytest.raises(CheckpointError):
        load_moge(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_prior_runs_on_single_frames(small_moge):
    from geo4d.models.moge.config import MoGeOptions

    prior = MoGePrior(small_moge, MoGeOptions(fov_x_deg=70.0))
    maps = prior(window_of(torch.rand(1, 28, 28, 3)))
    assert maps.intrinsics.shape == (1, 3, 3)
    assert maps.scale_kind == "scale"
