import pytest
import torch

from geo4d.models.moge.config import StackConfig
from geo4d.models.moge.stack import ConvStack
from tests.support.ruled import fill_ruled


def test_recorded_outputs_of_every_level(golden):
    """Two norms, two ways to enlarge, another activation, inputs and outputs with and without a projection."""
    data = golden("stack")
    stack = fill_ruled(ConvStack(StackConfig.from_published(data["config"])))
    with torch.no_grad():
        found = stack([data[f"in{level}"] for level in range(3)])
    for level, values in enumerate(found):
        torch.testing.assert_close(values, data[f"out{level}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dim_more": 1}, "got also \\['dim_more'\\]"),
        ({"num_res_blocks": [1, 2]}, "expected 3 values of num_res_blocks, got 2"),
        ({"resamplers": "avg_pool"}, "expected one of conv_transpose, .* got 'avg_pool'"),
        ({"res_block_in_norm": "instance_norm"}, "got 'instance_norm'"),
        ({"activation": "gelu"}, "got 'gelu'"),
    ],
)
def test_what_is_not_known_is_told(golden, change, says):
    with pytest.raises(ValueError, match=says):
        StackConfig.from_published({**golden("stack")["config"], **change})


def test_one_value_stands_for_all_levels():
    found = StackConfig.from_published(
        {
            "dim_in": None,
            "dim_res_blocks": [8, 8, 4],
            "dim_out": None,
            "resamplers": "bilinear",
            "num_res_blocks": 2,
        }
    )
    assert found.dim_in == (None,) * 3
    assert found.resamplers == ("bilinear",) * 2
    assert found.num_res_blocks == (2, 2, 2)
