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
from safetensors.torch import save_file

from geo4d.types import EvidenceMaps, Window

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

    def __call__(self, window: Window) -> EvidenceMaps:
        self.calls += 1
        height, width = window.size
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        z = 3 + x + 0.5 * window.rgb.mean(-1)
        points = torch.stack([0.6 * x * z, 0.4 * y * z, z], dim=-1)
        mask = torch.ones(points.shape[:3], dtype=torch.bool)
        mask[:, : height // 4, : width // 4] = False
        return EvidenceMaps(points=points, mask=mask)


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


@pytest.fixture
def checkpoint(tmp_path, golden_folder, small):
    """A folder in the layout of the model hub, with the small deterministic system."""
    published = json.loads((golden_folder / "configs.json").read_text())
    networks = {
        "unet_determ": (small.make_unet(golden_folder, "determ"), "unet_determ"),
        "point_map_vae": (small.make_point_map_vae(golden_folder), "point_map_vae"),
        "svd/vae": (small.make_image_vae(golden_folder), "svd_vae"),
        "svd/image_encoder": (small.make_image_encoder(golden_folder), "svd_image_encoder"),
    }
    for folder, (network, name) in networks.items():
        path = tmp_path / folder
        path.mkdir(parents=True)
        config = {**published[name]["small"], "_class_name": "Anything", "an_unknown_key": 1}
        (path / "config.json").write_text(json.dumps(config))
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(tensors, path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "svd" / "scheduler").mkdir()
    scheduler = json.dumps(published["svd_scheduler"]["config"])
    (tmp_path / "svd" / "scheduler" / "scheduler_config.json").write_text(scheduler)
    return tmp_path
