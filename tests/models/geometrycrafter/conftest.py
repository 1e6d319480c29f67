"""Small networks with made-up weights, and the recorded outputs they belong to."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from geo4d.types import PriorMaps, Window

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def golden():
    """``golden(name)``: the arrays of a file as float32 (or bool, int) tensors, texts as their JSON."""

    def read(name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            for key in arrays.files:
                array = arrays[key]
                if array.dtype.kind == "U":
                    found[key] = json.loads(array.tolist())
                else:
                    tensor = torch.from_numpy(array)
                    found[key] = tensor.float() if tensor.is_floating_point() else tensor
        return found

    return read


@pytest.fixture(scope="session")
def small(repository: Path) -> ModuleType:
    """The module that makes the small networks (``make_unet`` and its like)."""
    folder = str(repository / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("parity_geometrycrafter")


class RoomPrior:
    """A made-up prior: a plane seen at an angle, with a hole in the mask; depth follows the brightness a little."""

    name = "room"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, window: Window) -> PriorMaps:
        self.calls += 1
        height, width = window.size
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        z = 3 + x + 0.5 * window.rgb.mean(-1)
        points = torch.stack([0.6 * x * z, 0.4 * y * z, z], dim=-1)
        mask = torch.ones(points.shape[:3], dtype=torch.bool)
        mask[:, : height // 4, : width // 4] = False
        return PriorMaps(points=points, mask=mask)


@pytest.fixture
def room_prior() -> RoomPrior:
    return RoomPrior()


@pytest.fixture
def make_window():
    """``make_window(frames, size)``: seeded smooth pictures; a frame's picture depends on its number alone."""

    def make(frames: range, size: tuple[int, int], index: int = 0) -> Window:
        rgb = []
        for frame in frames:
            coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(frame))
            picture = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
            rgb.append(picture[0].movedim(0, -1))
        indices = torch.tensor(list(frames))
        return Window(torch.stack(rgb), indices, indices.double() / 10, index, 10.0)

    return make
