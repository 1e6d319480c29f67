"""Weight files of either kind."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from geo4d.errors import CheckpointError
from geo4d.models.store.reading import read_safetensors
from tests.support.checkpoints import STATE


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert read_safetensors(tmp_path / "model.safetensors").keys() == STATE.keys()
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(data[:-4])
    with pytest.raises(CheckpointError, match="safetensors"):
        read_safetensors(tmp_path / "cut.safetensors")
