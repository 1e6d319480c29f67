"""A Geo4D network of a few hundred thousand parameters, with made-up weights."""

import importlib
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from geo4d.diffusion.schedules import ScheduleConfig
from geo4d.models.geo4d.conditioning import ContextConstants
from geo4d.models.geo4d.config import CLIPConfig, Geo4DConfig, ResamplerConfig, UNetConfig, VAEConfig
from geo4d.models.geo4d.options import Geo4DOptions
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.geo4d.weights import make_parts
from geo4d.types import Window


def fill(module: nn.Module) -> nn.Module:
    """Fixed random values for a module without storage; no layer stays at zero."""
    module.to_empty(device="cpu")
    for name, parameter in module.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        values = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim >= 2 else 0.1
        shift = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        parameter.data.copy_(scale * values + shift)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_config() -> Geo4DConfig:
    return Geo4DConfig(
        unet=UNetConfig(
            model_channels=32,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_resolutions=(1,),
            num_head_channels=16,
            context_dim=24,
            initial_heads=2,
        ),
        vae=VAEConfig(channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1),
        resampler=ResamplerConfig(
            dim=32, depth=1, head_channels=8, num_heads=2, embedding_dim=40, output_dim=24, num_frames=16
        ),
        clip=CLIPConfig(
            embed_dim=24,
            text_width=24,
            text_layers=2,
            text_heads=2,
            vocabulary=49408,
            image_width=40,
            image_layers=1,
            image_head_channels=20,
            image_size=56,
        ),
        schedule=ScheduleConfig(),
    )


@pytest.fixture(scope="session")
def make_part(tiny_config: Geo4DConfig) -> Callable[..., Any]:
    """``make_part("unet")``: a fresh copy of one part of the tiny network."""

    def make(part: str, config: Geo4DConfig | None = None) -> nn.Module:
        return fill(make_parts(config or tiny_config, [part])[part])

    return make


@pytest.fixture
def make_predictor(tiny_config: Geo4DConfig, make_part: Callable[..., Any]) -> Callable[..., Geo4DPredictor]:
    """``make_predictor(num_steps=2, ...)``: a predictor at 64 x 64 with given options."""

    def make(
        config: Geo4DConfig | None = None, dtype: torch.dtype = torch.float32, **options: Any
    ) -> Geo4DPredictor:
        config = config or tiny_config
        generator = torch.Generator().manual_seed(1)
        constants = ContextConstants(
            *(torch.randn(1, n, config.unet.context_dim, generator=generator) for n in (77, 77, 256))
        )
        towers = {}
        if config.per_frame_image_tokens:
            towers = {"image_tower": make_part("image", config), "resampler": make_part("resampler", config)}
        settings = {"num_steps": 2, "max_area": 4096 * 2} | options
        return Geo4DPredictor(
            config,
            make_part("unet", config),
            make_part("vae", config),
            make_part("point_vae", config),
            constants,
            options=Geo4DOptions(**settings),
            dtype=dtype,
            **towers,
        )

    return make


@pytest.fixture
def make_window() -> Callable[..., Window]:
    def make(index: int = 0, num_frames: int = 16, size: tuple[int, int] = (64, 64)) -> Window:
        generator = torch.Generator().manual_seed(100 + index)
        frames = torch.arange(num_frames)
        rgb = torch.rand(num_frames, *size, 3, generator=generator)
        return Window(rgb, frames, frames.double() / 24, index, 24.0)

    return make


@pytest.fixture(scope="session")
def parity(repository: Path) -> ModuleType:
    """The parity benchmark as a module."""
    folder = str(repository / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("parity")
