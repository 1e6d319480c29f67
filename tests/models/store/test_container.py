"""Broken containers are refused, and reading changes no file."""

import zipfile
from pathlib import Path

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.formats.hashes import sha256_of
from geo4d.models.store.reading import read_state
from tests.support.checkpoints import STATE, container


def test_broken_containers(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    torch.save(STATE, good)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(good.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a readable PyTorch file"):
        read_state(cut)
    with pytest.raises(CheckpointError, match="compressed"):
        read_state(container(tmp_path / "bomb.pt", b"\0" * 10**6, compress=True))
    with zipfile.ZipFile(tmp_path / "none.pt", "w") as archive:
        archive.writestr("../../evil/data.pkl", b".")
    with pytest.raises(CheckpointError, match=r"data.pkl"):
        read_state(tmp_path / "none.pt")
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/byteorder", b"big")
    with pytest.raises(CheckpointError, match="big-endian"):
        read_state(tmp_path / "big.pt")
    with pytest.raises(CheckpointError, match="not there"):
        read_state(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="no tensors by name"):
        read_state(container(tmp_path / "no_tensors.pt", b"\x80\x02}."))


def test_reading_does_not_change_the_file(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "model.pt")
    before = sha256_of(tmp_path / "model.pt")
    state = read_state(tmp_path / "model.pt")
    state["a.bias"].add_(1)
    assert sha256_of(tmp_path / "model.pt") == before
