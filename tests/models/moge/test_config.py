import pytest

from geo4d.models.moge.config import MoGeConfig, MoGeOptions


@pytest.mark.parametrize("wrong", [{"resolution_level": 10}, {"fov_x_deg": 180.0}, {"batch": 0}])
def test_wrong_options(wrong):
    with pytest.raises(ValueError, match="expected"):
        MoGeOptions(**wrong)


def test_unreleased_networks_are_refused():
    for wrong in ({"encoder": "resnet"}, {"split_head": False}):
        with pytest.raises(ValueError, match="expected"):
            MoGeConfig(**wrong)
    with pytest.raises(ValueError, match="scale_head"):
        MoGeConfig.from_published({"scale_head": True})
