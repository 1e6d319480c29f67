import pytest

from geo4d.errors import CheckpointError
from geo4d.models.huggingface.config import HuggingFaceOptions, meaning_of


@pytest.mark.parametrize(
    ("config", "meaning"),
    [
        ({"model_type": "depth_anything", "depth_estimation_type": "relative"}, "relative disparity"),
        ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, "metric depth"),
        ({"model_type": "depth_anything"}, "relative disparity"),  # V1, before there were metric ones
        ({"model_type": "dpt"}, "relative disparity"),
        ({"model_type": "dpt", "backbone_config": None}, "relative disparity"),
        ({"model_type": "dpt", "backbone_config": {"model_type": "beit"}}, "relative disparity"),
        ({"model_type": "dpt", "backbone_config": {"model_type": "dinov2"}}, "metric depth"),
        ({"model_type": "zoedepth"}, "metric depth"),
        ({"model_type": "depth_pro", "use_fov_model": True}, "focal-free inverse depth"),
    ],
)
def test_what_each_family_gives(config, meaning):
    assert meaning_of(config, "here") == meaning


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "prompt_depth_anything"}, "needs a measured depth of every picture as its prompt"),
        (
            {"model_type": "bert"},
            "expected a depth network of one of the families depth_anything.* got 'bert'",
        ),
        ({}, "got None"),
        ({"model_type": "depth_pro", "use_fov_model": False}, "with a field of view"),
    ],
)
def test_what_cannot_be_run_says_why(config, says):
    with pytest.raises(CheckpointError, match=says):
        meaning_of(config, "here")


def test_a_size_must_hold_a_patch():
    with pytest.raises(ValueError, match="at least 14 pixels, got 3"):
        HuggingFaceOptions(size=3)
