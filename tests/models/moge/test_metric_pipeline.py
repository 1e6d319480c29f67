import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.base import Predictor, load_predictor
from geo4d.models.moge.config import MoGe2Config
from geo4d.models.moge.metric_model import MoGe2
from tests.support.depths import as_window
from tests.support.ruled import fill_ruled


@pytest.fixture(scope="module")
def published(golden, tmp_path_factory):
    """A file as the authors publish it, with normals."""
    config = golden("second")["config"]
    state = fill_ruled(MoGe2(MoGe2Config.from_published(config))).state_dict()
    state["normal_head.output_blocks.4.weight"] = torch.zeros(3, 8, 1, 1)
    file = tmp_path_factory.mktemp("moge2") / "model.pt"
    torch.save({"model_config": config, "model": state}, file)
    return file


def test_a_predictor_in_metres(published, golden):
    made = load_predictor(
        "moge2", weights=published, device="cpu", max_side=112, fov_x_deg=60.0, solver="published"
    )
    assert isinstance(made, Predictor)
    assert made.info.scale_kind == "metric"
    assert made.info.evidence == "motion"
    assert made.info.licence == "MIT"
    assert made.size_for((1080, 1920)) == (63, 112)
    data = golden("second")
    found = made.predict(as_window(data["image_uint8"].float() / 255), seed=0)
    assert found.point_scale_kind == "metric"
    assert torch.equal(found.valid, ~found.sky)
    # The first frame keeps the network's own metres; without motion there is nothing that could scale it.
    torch.testing.assert_close(
        found.point_map[0, ::4, ::4, 2], data["fov60_points"][0, ..., 2], rtol=1e-3, atol=1e-3
    )
    assert abs(float(found.intrinsics[0, 0, 0]) / 112 - float(data["fov60_intrinsics"][0, 0, 0])) < 1e-3
    assert torch.equal(found.valid[0, ::4, ::4], data["fov60_mask"][0])


def test_each_checkpoint_has_its_own_name(published, checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="only MoGe-2 checkpoints with a metric scale"):
        load_predictor("moge2", weights=checkpoint)
    with pytest.raises(CheckpointError, match="MoGe-2 as moge2"):
        load_predictor("moge", weights=published)
    torch.save({"a": 1}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="expected a MoGe checkpoint with"):
        load_predictor("moge2", weights=tmp_path)


def test_what_is_missing_or_unknown_is_told(published, tmp_path, monkeypatch):
    monkeypatch.setenv("GEO4D_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError, match="geo4d models pull moge2"):
        load_predictor("moge2")
    with pytest.raises(ValueError, match=r"got also \['behaviour'\]"):
        load_predictor("moge2", weights=published, behaviour="newest")
