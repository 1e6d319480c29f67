from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.datasets.clips import Clip
from geo4d.training.tasks.geometrycrafter.priors import FramePrior, StandInPrior


def wall_clip(number: int, num_frames: int = 4, size: tuple[int, int] = (64, 96)) -> Clip:
    """A wavy wall under some sky, with a hole of unknown depth: quick, and a function of the number alone."""
    rng = np.random.default_rng(number)
    height, width = size
    y, x = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    a, b, c = rng.random(3)
    depth = np.stack([2 + 3 * a * x + 2 * b * y + np.sin(6 * c * x + 0.1 * t) for t in range(num_frames)])
    depth[:, :6] = np.inf
    depth[:, 20:24, 10:20] = np.nan
    rgb = np.stack([np.stack([x, y, np.nan_to_num(1 / frame).clip(0, 1)], -1) for frame in depth])
    intrinsics = np.tile(
        np.array([[80.0, 0, width / 2], [0, 80.0, height / 2], [0, 0, 1]]), (num_frames, 1, 1)
    )
    return Clip(
        name=f"wall-{number}", dataset="walls", rgb=(rgb * 255).astype(np.uint8), depth=depth.astype(np.float32),
        intrinsics=intrinsics, times_s=np.arange(num_frames, dtype=float),
    )  # fmt: skip


@dataclass(frozen=True)
class WallOrder:
    """Sample n is wall n modulo 6."""

    with_prior: bool = False

    def __call__(
        self, first_step: int, batch: int, rank: int, processes: int
    ) -> Iterator[tuple[int, Clip, FramePrior | None]]:
        sample = first_step * batch
        while True:
            if sample % batch // (batch // processes) == rank:
                clip = wall_clip(sample % 6)
                yield sample, clip, StandInPrior()(clip) if self.with_prior else None
            sample += 1


@pytest.fixture
def wall():
    return wall_clip


@pytest.fixture
def order() -> type[WallOrder]:
    return WallOrder


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder of fresh smallest networks, as a chain would leave it."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from geo4d.models.geometrycrafter.embedding import build_image_encoder
    from geo4d.models.geometrycrafter.vae import ImageVAE
    from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
    from geo4d.training.tasks.geometrycrafter.networks import fresh_point_map_vae, fresh_unet, smallest_sizes

    torch.manual_seed(0)
    sizes = smallest_sizes()
    folder = tmp_path_factory.mktemp("start")
    options = {"window_length": 4, "overlap": 1, "max_side": 64}
    FolderPlan(None, {"stage": "made up", "prior": "tiny", "options": options}).write(
        folder,
        {
            "vae": (ImageVAE(sizes.image_vae, with_decoder=True), sizes.image_vae),
            "image_encoder": (build_image_encoder(sizes.image_encoder), sizes.image_encoder),
            "point_map_vae": (fresh_point_map_vae(sizes.point_map_vae), sizes.point_map_vae),
            "unet_diff": (fresh_unet(sizes.unet_for("diff")), sizes.unet_for("diff")),
        },
    )
    return folder
