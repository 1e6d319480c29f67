import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.moge.weights import find_moge, load_moge


def test_every_tensor_arrives(checkpoint, small_moge):
    network = load_moge(find_moge(checkpoint.parent))
    expected = small_moge.state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_foreign_files_are_named(tmp_path, checkpoint, golden, small_moge):
    with pytest.raises(CheckpointError, match="models pull"):
        find_moge(tmp_path / "nowhere")
    content = {"model_config": golden("pinned")["config"], "model": small_moge.state_dict()}
    del content["model"]["backbone.norm.weight"]
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointError, match=r"missing: backbone\.norm\.weight"):
        load_moge(checkpoint)
    torch.save({"model_config": {"encoder": "dinov2_vitl14", "scale_head": 1}, "model": {}}, checkpoint)
    with pytest.raises(CheckpointError, match="MoGe-1"):
        load_moge(checkpoint)
    torch.save({"weights": torch.zeros(1)}, checkpoint)
    with pytest.raises(CheckpointError, match="model_config"):
        load_moge(checkpoint)
