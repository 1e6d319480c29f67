"""Every family with random weights, as a folder of the hub: what comes out is what transformers itself computes."""

import json

import numpy as np
import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.base import Predictor, load_predictor
from tests.support.depths import as_window
from tests.support.hub_networks import NETWORKS, save_network

pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=list(NETWORKS))
def case(request, tmp_path_factory):
    folder = save_network(request.param, tmp_path_factory.mktemp(request.param), "---\nlicense: mit\n---\n")
    return request.param, folder, load_predictor(f"hf:{folder}", device="cpu")


@pytest.fixture(scope="module")
def rgb():
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    big = torch.nn.functional.interpolate(coarse, (48, 80), mode="bilinear").movedim(1, -1)
    return (big * 255).round() / 255


def test_predictions_of_every_family(case, rgb):
    name, folder, made = case
    assert isinstance(made, Predictor)
    metric = name != "dpt" and name != "depth_anything"
    found = made.predict(as_window(rgb), seed=0)
    assert found.point_map.shape == (2, 48, 80, 3)
    assert torch.isfinite(found.point_map).all()
    assert found.point_scale_kind == ("metric" if metric else "scale")
    assert made.info.licence == "mit"
    assert made.info.name == f"hf:{folder}"
    assert len(made.info.weights_sha256) == 64
    assert made.info.weights_compared == {"unknown": 1}
    assert made.memory_bytes((480, 640)) > 0
    json.dumps(made.info.config)


def test_the_network_is_the_one_of_transformers(case, rgb):
    """Their processor (or the rule written out, for Depth Pro) and their forward pass, without any of our modules."""
    from transformers import AutoModelForDepthEstimation
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
    from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil

    name, folder, made = case
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings.pop("image_processor_type")
    pictures = list((rgb * 255).byte().numpy())
    if name == "depth_pro":
        x = torch.nn.functional.interpolate((rgb.movedim(-1, 1) - 0.5) / 0.5, (64, 64), mode="bilinear")
    else:
        maker = ZoeDepthImageProcessorPil if name == "zoedepth" else DPTImageProcessorPil
        x = maker(**settings)(pictures, return_tensors="pt")["pixel_values"].float()
    with torch.no_grad():
        theirs = AutoModelForDepthEstimation.from_pretrained(folder)(x)
        ours = made.network.network(made.network.preprocessing.image(rgb))
    scale = theirs.predicted_depth.abs().max()
    assert (ours.predicted_depth - theirs.predicted_depth).abs().max() < 0.02 * scale
    if name == "depth_pro":
        torch.testing.assert_close(ours.field_of_view, theirs.field_of_view)


def test_wrong_settings_are_told(case):
    folder = case[1]
    with pytest.raises(ValueError, match="got also \\['steps'\\]"):
        load_predictor(f"hf:{folder}", steps=3)
    with pytest.raises(ValueError, match="expected no weights beside hf:"):
        load_predictor(f"hf:{folder}", weights=folder)


def test_options_reach_the_network(tmp_path):
    folder = save_network("depth_anything", tmp_path)
    made = load_predictor(
        f"hf:{folder}", device="cpu", dtype="bfloat16", size=28, output="metric depth", max_side=64
    )
    assert made.network.preprocessing.size == (28, 28)
    assert made.network.dtype == torch.bfloat16
    assert made.info.scale_kind == "metric"
    assert made.size_for((480, 640)) == (48, 64)
    assert "unknown, see whoever made it" in made.info.licence
    other = load_predictor(f"hf:{folder}", device="cpu")
    assert other.info.weights_sha256 == made.info.weights_sha256


def test_a_prompt_network_is_refused(tmp_path):
    folder = save_network("depth_anything", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "prompt_depth_anything"}))
    with pytest.raises(CheckpointError, match="needs a measured depth of every picture"):
        load_predictor(f"hf:{folder}")


def test_a_run_by_name(tmp_path):
    """As a user does it: the command, a folder, a result that says which licence its weights have."""
    from geo4d.apps.cli import main
    from geo4d.run.reconstruct import load

    folder = save_network("depth_anything", tmp_path / "network", "---\nlicense: apache-2.0\n---\n")
    rng = np.random.default_rng(0)
    frames = tmp_path / "frames"
    frames.mkdir()
    import cv2

    picture = cv2.resize(rng.uniform(0, 255, (9, 12, 3)).astype(np.float32), (100, 60))
    for t in range(6):
        cv2.imwrite(str(frames / f"{t:03d}.png"), picture[:48, 2 * t : 2 * t + 80])
    words = [
        "reconstruct",
        str(frames),
        "-o",
        str(tmp_path / "out"),
        "--model",
        f"hf:{folder}",
        "--fps",
        "10",
    ]
    assert (
        main(
            [
                *words,
                "--quiet",
                "--keep-going",
                "--model-option",
                "window_length=4",
                "--model-option",
                "window_stride=2",
            ]
        )
        == 0
    )
    result = load(tmp_path / "out")
    assert result.provenance["model"]["licence"] == "apache-2.0"
    assert result.provenance["model"]["name"] == f"hf:{folder}"
    assert result.num_frames == 6
