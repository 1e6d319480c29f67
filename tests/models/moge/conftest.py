"""A small network with made-up weights, and the recorded outputs it belongs to."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geo4d.models.moge.config import MoGeConfig
from geo4d.models.moge.model import MoGe

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """``golden(name)``: the arrays of a file as tensors, texts as their JSON."""

    def read(name: str) -> dict[str, Any]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return {
                key: json.loads(arrays[key].tolist())
                if arrays[key].dtype.kind == "U"
                else torch.from_numpy(arrays[key])
                for key in arrays.files
            }

    return read


@pytest.fixture(scope="session")
def small_moge(golden, repository: Path) -> MoGe:
    folder = str(repository / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # The module of both families needs the extra of GeometryCrafter.
    pytest.importorskip("diffusers")
    network = MoGe(MoGeConfig.from_published(golden("pinned")["config"]))
    filled: MoGe = importlib.import_module("parity_geometrycrafter").fill_moge_by_rule(network)
    return filled


@pytest.fixture
def checkpoint(tmp_path, golden, small_moge):
    """A file as the authors publish it."""
    file = tmp_path / "model.pt"
    torch.save({"model_config": golden("pinned")["config"], "model": small_moge.state_dict()}, file)
    return file
