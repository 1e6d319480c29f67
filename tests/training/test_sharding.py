"""Weights shared over two processes that really are two, and the ways to start that do not go together."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geo4d.errors import InputError, MissingExtraError
from geo4d.training.loop import train
from tests.support.sharded import LOOP, Numbers, Wave, held, launch, losses


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_with_half_the_weights_each_repeat_one(tmp_path: Path, accumulate: int) -> None:
    said = launch(tmp_path / "two", 6, "fsdp", accumulate=accumulate)
    assert said.count("processes 2 step 6") == 2
    count = sum(p.numel() for p in Wave().parameters())
    assert sum(held(said)) == count
    assert max(held(said)) < 0.7 * count
    train(
        Wave(), Numbers(8), replace(LOOP, num_steps=6, accumulate=accumulate), tmp_path / "one", device="cpu"
    )
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 6
    assert two == pytest.approx(one, rel=1e-4)
    assert one[5] != pytest.approx(one[0], rel=0.1)
    # The exported average, too; frozen weights are those of the start.
    ours, theirs = (load_file(tmp_path / run / "weights/w.safetensors") for run in ("one", "two"))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly_also_over_another_number_of_processes(tmp_path: Path) -> None:
    launch(tmp_path / "whole", 6, "fsdp")
    launch(tmp_path / "cut", 3, "fsdp")
    assert "step 6" in launch(tmp_path / "cut", 6, "fsdp")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / run / "weights/w.safetensors") for run in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    launch(tmp_path / "other", 3, "fsdp")
    launch(tmp_path / "other", 6, "fsdp", processes=4)
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    with pytest.raises(InputError, match="saved with --parallel fsdp"):
        train(Wave(), Numbers(8), replace(LOOP, num_steps=7), tmp_path / "cut", resume=True, device="cpu")


def test_shards_need_several_processes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected several processes .*torchrun"):
        train(Wave(), Numbers(8), replace(LOOP, parallel="fsdp"), tmp_path, device="cpu")


def test_the_8_bit_optimiser_is_an_extra_and_not_for_shards(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="cannot be shared"):
        train(Wave(), Numbers(8), replace(LOOP, eight_bit=True, parallel="fsdp"), tmp_path, device="cpu")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(MissingExtraError, match="train-8bit"):
        train(Wave(), Numbers(8), replace(LOOP, eight_bit=True), tmp_path, device="cpu")


def test_8_bits_go_the_same_way(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    found = {}
    for bits in (False, True):
        loop = replace(LOOP, num_steps=6, eight_bit=bits)
        train(Wave(), Numbers(8), replace(loop, num_steps=3), tmp_path / str(bits), device="cpu")
        train(Wave(), Numbers(8), loop, tmp_path / str(bits), resume=True, device="cpu")
        found[bits] = losses(tmp_path / str(bits))
    assert found[True] == pytest.approx(found[False], rel=0.02)
    assert found[True] != found[False]
