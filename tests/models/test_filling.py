import pytest
import torch
from torch import nn

from geo4d.errors import CheckpointError
from geo4d.models.filling import fill_network, key_problems


def network() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def tensors() -> dict[str, torch.Tensor]:
    real = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return {key: torch.full_like(value, 7) for key, value in real.state_dict().items()}


def test_all_values_are_taken_over_in_the_asked_type() -> None:
    given = tensors()
    filled = fill_network(network(), given, torch.bfloat16, "a net")
    for key, value in filled.state_dict().items():
        assert value.device.type == "cpu"
        assert (value == 7).all()
        assert value.dtype == (torch.bfloat16 if given[key].is_floating_point() else given[key].dtype)
    assert not filled.training
    assert not any(p.requires_grad for p in filled.parameters())


def test_what_does_not_fit_is_told_apart() -> None:
    given = tensors()
    given["0.weight"] = torch.zeros(3, 5)
    given["2.bias"] = given.pop("0.bias")
    with pytest.raises(CheckpointError) as error:
        fill_network(network(), given, torch.float32, "a net")
    text = str(error.value)
    assert text.startswith(
        "a net does not fit: 1 missing: 0.bias; 1 unknown: 2.bias; 1 of another shape: 0.weight"
    )
    assert "(3, 5) for (3, 2)" in text


def test_long_lists_are_cut_and_counted() -> None:
    expected = {f"k{i}": torch.zeros(1) for i in range(9)}
    assert key_problems(expected, {}) == "9 missing: k0, k1, k2, k3, ..."
    assert key_problems(expected, {}, most=9).endswith("k8")
    assert key_problems(expected, expected) == ""


class WithConstants(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.register_buffer(name, torch.zeros(1, 5), persistent=False)


def test_constants_that_no_checkpoint_stores() -> None:
    given = {"0.linear.weight": torch.ones(1, 1), "0.linear.bias": torch.ones(1)}
    with torch.device("meta"):
        known, unknown = nn.Sequential(WithConstants("position_ids")), nn.Sequential(WithConstants("table"))
    filled = fill_network(known, given, torch.float32, "a net")
    assert filled[0].position_ids.tolist() == [[0, 1, 2, 3, 4]]
    with pytest.raises(CheckpointError, match=r"no values for 0\.table"):
        fill_network(unknown, given, torch.float32, "a net")
