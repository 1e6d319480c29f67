import pytest
import torch

from geo4d.models import devices
from geo4d.models.devices import OnDevice, default_device, default_dtype


class Moved(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def to(self, device):  # type: ignore[override]
        self.places.append(str(device))
        return self


def test_a_module_comes_to_the_device_and_goes_back_even_after_a_failure() -> None:
    module = Moved()

    def fail() -> None:
        with OnDevice(module, torch.device("meta"), True):
            assert module.places == ["meta"]
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert module.places == ["meta", "cpu"]


def test_without_offloading_nothing_moves() -> None:
    module = Moved()
    with OnDevice(module, torch.device("meta"), False):
        pass
    assert module.places == []


@pytest.mark.parametrize(
    ("device", "gpu", "cpu", "dtype"),
    [
        ("cuda", True, False, torch.bfloat16),
        ("cuda:1", False, True, torch.float16),
        ("cpu", False, True, torch.bfloat16),
        ("cpu", True, False, torch.float32),
        ("mps", True, True, torch.float32),
    ],
)
def test_types_by_what_the_device_computes_in(monkeypatch, device, gpu, cpu, dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    monkeypatch.setattr(devices, "cpu_computes_bfloat16", lambda: cpu)
    assert default_dtype(device) == dtype


def test_a_gpu_is_taken_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == "cpu"


@pytest.mark.parametrize(
    ("found", "yes"), [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False)]
)
def test_instructions_for_bfloat16(monkeypatch, found, yes) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert devices.cpu_computes_bfloat16() == yes
