"""Apple's GPUs, of which none is at hand: what the networks that are put there use of them, and when they are taken.

A pretended device runs the networks and refuses float64, as the real one does; the operators that it saw are looked up in
the table that comes with torch. What no test here can tell is whether the kernels there compute the right numbers.
"""

import pytest
import torch

from benchmarks.on_gpu.networks import geo4d_predictor, window
from geo4d.models.base import ON_MPS, PREDICTORS, choose_device, load_predictor
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.types import EvidenceMaps, Prediction
from tests.support.fake_device import MPS, FakeDevice, FakeTensor
from tests.support.mps_table import MADE_OF_OTHERS, support

SIZE = (64, 96)
CALLS = {
    "abs.default": "abs.out",
    "convolution.default": "_mps_convolution.default",
    "copy_.default": "_copy_from.default",
    "remainder.Scalar": "remainder.Tensor",
    "rsub.Scalar": "rsub.Tensor",
    "sort.default": "sort.stable",
    "stack.default": "cat.default",
}
"""Operators that are made of others, and the one that does their work."""

ONLY_MEMORY = {
    "_to_copy", "_unsafe_view", "clone", "contiguous", "detach", "empty_like", "expand", "full_like", "scalar_tensor",
    "split", "t", "transpose", "unbind", "zeros_like",
}  # fmt: skip
"""Operators that are made of others and only look at memory in another way, copy or fill it: see the test of these."""


def evidence(frames: int) -> EvidenceMaps:
    generator = torch.Generator().manual_seed(5)
    points = 1 + torch.rand(frames, 32, 48, 3, generator=generator)
    return EvidenceMaps(
        points=points,
        mask=torch.ones(frames, 32, 48, dtype=torch.bool),
        confidence=torch.rand(frames, 32, 48, generator=generator),
        log_depth_spread=torch.full((frames, 32, 48), 0.05),
        moving=torch.rand(frames, 32, 48, generator=generator),
    )


def tiny_there() -> tuple[Prediction, FakeDevice]:
    """The answer with evidence, which takes every stage, and without."""
    view = window(4, SIZE)
    with FakeDevice(MPS) as device:
        predictor = load_predictor("tiny", device="mps")
        predictor.predict(view, seed=1)
        return predictor.predict(view, seed=1, evidence=evidence(4)), device


def geo4d_there() -> tuple[Prediction, FakeDevice]:
    with FakeDevice(MPS) as device:
        made = geo4d_predictor(torch.device("cpu"), "float32", True)
        predictor = Geo4DPredictor(
            made.config, made.unet, made.vae, made.point_vae, made.constants, options=made.options, device=MPS
        )
        return predictor.predict(window(16, (64, 64)), seed=0), device


@pytest.fixture(scope="module")
def ran() -> dict[str, tuple[Prediction, FakeDevice]]:
    return {"tiny": tiny_there(), "geo4d": geo4d_there()}


def missing(operators: set[str]) -> list[str]:
    """Those that Apple's GPUs do not have, and those made of others that nobody looked into."""
    looked_into = CALLS.keys() | {name for name in operators if name.partition(".")[0] in ONLY_MEMORY}
    return sorted(
        name
        for name in operators
        if support(name) == "none" or (support(name) == MADE_OF_OTHERS and name not in looked_into)
    )


def test_every_network_that_is_put_there_is_tried_here(ran) -> None:
    assert set(ran) == ON_MPS


@pytest.mark.parametrize("name", sorted(ON_MPS))
def test_torch_has_every_operator_there_and_float64_is_not_needed(ran, name: str) -> None:
    answer, device = ran[name]
    assert len(device.operators) > 30  # networks ran there, not beside it
    assert {"convolution.default", "native_group_norm.default"} <= device.operators
    assert not missing(device.operators)
    assert all(not isinstance(value, FakeTensor) for value in answer.tensors().values())


def test_the_answer_is_that_of_the_cpu(ran) -> None:
    here = load_predictor("tiny", device="cpu", dtype="float32").predict(
        window(4, SIZE), seed=1, evidence=evidence(4)
    )
    for name, value in here.tensors().items():
        torch.testing.assert_close(ran["tiny"][0].tensors()[name], value, rtol=1e-4, atol=1e-4)


def test_what_operators_are_made_of_is_there() -> None:
    for other in [
        *CALLS.values(),
        "as_strided.default",
        "empty_strided.default",
        "fill_.Scalar",
        "view.default",
    ]:
        assert support(other) == "kernel", other


def test_what_is_not_there_is_found() -> None:
    assert missing({"_linalg_svd.default", "add.Tensor"}) == ["_linalg_svd.default"]
    assert missing({"linalg_lstsq.default"}) == [
        "linalg_lstsq.default"
    ]  # made of others, which nobody looked into
    with FakeDevice(MPS), pytest.raises(TypeError, match="float64"):
        torch.ones(2, device="mps").double()
    with FakeDevice(MPS), pytest.raises(TypeError, match="float64"):
        torch.ones(2, dtype=torch.float64).to("mps")


def test_it_is_taken_for_the_models_that_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for name in PREDICTORS:
        assert choose_device(None, name) == ("mps" if name in ON_MPS else "cpu")
    assert choose_device(None) == "cpu"
    assert choose_device("cpu", "tiny") == "cpu"
    assert choose_device("mps", "hf:some/network") == "mps"
    with pytest.raises(ValueError, match=r"expected the device cpu for moge, got mps.*geo4d, tiny run there"):
        choose_device("mps", "moge")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(None, "tiny") == "cuda"
