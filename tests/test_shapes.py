"""Any picture shape, every predictor: the size is decided once, maps come back at it, and square pixels stay square."""

import importlib
import json
import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geo4d.diffusion.schedules import ScheduleConfig
from geo4d.geometry.cameras import camera_rays, centred_intrinsics
from geo4d.models.base import PREDICTORS, Predictor, load_predictor
from geo4d.models.geo4d.conditioning import ContextConstants
from geo4d.models.geo4d.config import CLIPConfig, Geo4DConfig, ResamplerConfig, UNetConfig, VAEConfig
from geo4d.models.geo4d.options import Geo4DOptions
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.geo4d.weights import make_parts
from geo4d.models.moge.config import MoGe2Config, MoGeConfig, MoGeOptions
from geo4d.models.moge.metric_model import MoGe2
from geo4d.models.moge.metric_pipeline import MoGe2Depths
from geo4d.models.moge.model import MoGe
from geo4d.models.moge.pipeline import MoGePredictor, MoGePrior
from geo4d.models.monodepth.pipeline import DepthPredictor
from geo4d.run.reconstruct import reconstruct
from geo4d.types import EvidenceMaps, Prediction, Reconstruction, Window
from tests.support.ruled import fill_ruled
from tests.support.truth import BoxWorld

SHAPES = (0.3, 0.42, 0.5208, 0.5625, 0.75, 1.0, 1.333, 1.778, 1.85, 1.8965, 2.39, 2.8, 4.0)
"""Width over height. Phones, film formats, and the edges of what is asked for."""
AREA = 72 * 128
FEW = (0.3, 0.5208, 1.778, 1.8965, 4.0)


def size_of(shape: float) -> tuple[int, int]:
    return round(math.sqrt(AREA / shape)), round(math.sqrt(AREA * shape))


def pictures(size: tuple[int, int], count: int = 3) -> np.ndarray:
    """Smooth colours that slide a little from frame to frame."""
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    wide = F.interpolate(coarse, (size[0] + 2 * count, size[1] + 2 * count), mode="bicubic").clamp(0, 1)
    frames = [wide[0, :, t : t + size[0], 2 * t : 2 * t + size[1]] for t in range(count)]
    return (torch.stack(frames).movedim(1, -1) * 255).byte().numpy()


class Asked:
    """A predictor of which the run may ask the size of the source once, in the plan, and nothing else."""

    def __init__(self, model: Predictor, source: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        self._model, self._source, self.info = model, source, model.info
        self._size_for = model.size_for
        self.planned: list[tuple[int, int]] = []
        self.answers: list[tuple[tuple[int, int], tuple[int, int]]] = []
        monkeypatch.setattr(model, "size_for", self.size_for)  # also what the predictor asks itself

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        assert tuple(source_size) == self._source, f"asked again, with {source_size}"
        size = self._size_for(source_size)
        self.planned.append(size)
        return size

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        return self._model.memory_bytes(source_size)

    def prepare(self, windows: Any) -> Any:
        return self._model.prepare(windows)

    def predict(self, window: Window, **words: Any) -> Prediction:
        answer = self._model.predict(window, **words)
        self.answers.append((window.size, answer.size))
        return answer


# Builders of every predictor, with networks of made-up weights where the package carries none ---------------------


def build_tiny(golden: Path) -> Predictor:
    return load_predictor("tiny", num_pixels=48 * 80, dtype="float32")


def build_geo4d(golden: Path) -> Predictor:
    config = Geo4DConfig(
        unet=UNetConfig(
            model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1,),
            num_head_channels=16, context_dim=24, initial_heads=2,
        ),
        vae=VAEConfig(channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1),
        resampler=ResamplerConfig(
            dim=32, depth=1, head_channels=8, num_heads=2, embedding_dim=40, output_dim=24, num_frames=16
        ),
        clip=CLIPConfig(
            embed_dim=24, text_width=24, text_layers=2, text_heads=2, vocabulary=49408, image_width=40,
            image_layers=1, image_head_channels=20, image_size=56,
        ),
        schedule=ScheduleConfig(),
    )  # fmt: skip
    parts = [fill(make_parts(config, [name])[name]) for name in ("unet", "vae", "point_vae")]
    constants = ContextConstants(*(torch.randn(1, n, 24, generator=seeded(n)) for n in (77, 77, 256)))
    return Geo4DPredictor(config, *parts, constants, options=Geo4DOptions(num_steps=1, max_area=4 * 64 * 64))


def build_geometrycrafter(golden: Path, variant: str = "diff") -> Predictor:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from geo4d.models.geometrycrafter.pipeline import GeometryCrafterPredictor

    small = importlib.import_module("parity_geometrycrafter")
    system = small.make_system(
        golden / "geometrycrafter" / "golden",
        variant,
        window_length=3,
        overlap=1,
        num_steps=1,
        decode_chunk=3,
    )
    name = "geometrycrafter" if variant == "diff" else "geometrycrafter-determ"
    return GeometryCrafterPredictor(name, system, Wall(), "0" * 64)


def build_moge(golden: Path) -> Predictor:
    pytest.importorskip("diffusers")
    small = importlib.import_module("parity_geometrycrafter")
    with np.load(golden / "moge" / "golden" / "pinned.npz") as arrays:
        published = json.loads(arrays["config"].tolist())
    network = small.fill_moge_by_rule(MoGe(MoGeConfig.from_published(published)))
    return MoGePredictor(MoGePrior(network, MoGeOptions(resolution_level=0)), "0" * 64)


def build_moge2(golden: Path) -> Predictor:
    with np.load(golden / "moge" / "golden" / "second.npz") as arrays:
        published = json.loads(arrays["config"].tolist())
    network = fill_ruled(MoGe2(MoGe2Config.from_published(published)))
    return DepthPredictor(MoGe2Depths(network, MoGeOptions(resolution_level=0)), name="moge2", licence="MIT")


BUILDERS: dict[str, Callable[[Path], Predictor]] = {
    "tiny": build_tiny,
    "geo4d": build_geo4d,
    "geometrycrafter": build_geometrycrafter,
    "geometrycrafter-determ": lambda golden: build_geometrycrafter(golden, "determ"),
    "moge": build_moge,
    "moge2": build_moge2,
}


class Wall:
    """A prior: a plane seen at an angle, with the field of view that a focal length of one picture height gives."""

    name = "wall"

    def __call__(self, window: Window) -> EvidenceMaps:
        intrinsics = centred_intrinsics(torch.tensor(float(window.size[0])), window.size)
        rays = camera_rays(intrinsics, window.size)
        depth = 3 / (1 - 0.2 * rays[..., 0]).clamp(min=0.2)
        points = (rays * depth[..., None]).expand(window.num_frames, *window.size, 3).clone()
        return EvidenceMaps(points=points, mask=torch.ones(points.shape[:3], dtype=torch.bool))


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def fill(module: nn.Module) -> nn.Module:
    """Fixed values of a sensible size for a module without storage."""
    module.to_empty(device="cpu")
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=seeded(zlib.crc32(name.encode())))
        scale = parameter[0].numel() ** -0.5 if parameter.ndim >= 2 else 0.1
        parameter.data.copy_(scale * values + float(parameter.ndim == 1 and name.endswith("weight")))
    return module


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest, repository: Path) -> Predictor:
    folder = str(repository / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return BUILDERS[request.param](repository / "tests" / "models")


# The tests -------------------------------------------------------------------------------------------------------


def test_every_predictor_is_tried() -> None:
    assert set(BUILDERS) == set(PREDICTORS)


def check(result: Reconstruction, asked: Asked, size: tuple[int, int]) -> None:
    assert result.size == size
    assert len(set(asked.planned)) == 1
    assert asked.answers
    for pictures_size, maps_size in asked.answers:
        assert pictures_size == maps_size == asked.planned[0]


CASES = [("tiny", shape) for shape in SHAPES] + [
    (name, shape) for name in PREDICTORS if name != "tiny" for shape in FEW
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "shape"), CASES, indirect=["model"])
def test_square_pixels_stay_square_in_any_shape(
    model: Predictor, shape: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(shape)
    asked = Asked(model, size, monkeypatch)
    result = reconstruct(pictures(size), model=asked, fps=10, split_shots=False, tries=0)
    check(result, asked, size)
    ratio = result.intrinsics[:, 1, 1] / result.intrinsics[:, 0, 0]
    assert np.abs(ratio - 1).max() < 0.002


@pytest.mark.slow
@pytest.mark.parametrize(("model", "shape"), [(name, 1.8965) for name in PREDICTORS], indirect=["model"])
def test_given_intrinsics_come_back_exactly(
    model: Predictor, shape: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(shape)
    given = (0.9 * size[1], 0.8 * size[1], 0.51 * size[1], 0.48 * size[0])
    asked = Asked(model, size, monkeypatch)
    result = reconstruct(pictures(size), model=asked, fps=10, split_shots=False, tries=0, intrinsics=given)
    check(result, asked, size)
    k = result.intrinsics
    found = np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], 1)
    assert np.abs(found / np.array(given) - 1).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("shape", [0.5208, 1.333, 1.8965, 2.8])
@pytest.mark.parametrize("model", ["tiny"], indirect=True)
def test_shapes_with_evidence_from_motion(
    model: Predictor, shape: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A textured room and a camera with parallax: windows of the network and of the evidence must have one size."""
    height, width = (2 * side for side in size_of(shape))
    # The same field of view along the diagonal in every shape.
    fov_deg = 2 * math.degrees(math.atan(0.6 * width / math.hypot(width, height)))
    world = BoxWorld((height, width), fov_deg=fov_deg)
    frames = (torch.stack([world.rgb(6 * t) for t in range(16)]) * 255).byte().numpy()
    asked = Asked(model, (height, width), monkeypatch)
    result = reconstruct(frames, model=asked, fps=10, split_shots=False, tries=0)
    check(result, asked, (height, width))
    assert result.diagnostics["evidence_windows"], "expected parallax, and evidence from it"
    ratio = result.intrinsics[:, 1, 1] / result.intrinsics[:, 0, 0]
    assert np.abs(ratio - 1).max() < 0.002
