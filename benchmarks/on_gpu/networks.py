"""Networks of the released sizes with weights of a fixed seed made on the device, and what goes into them."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geo4d.models.devices import DTYPES
from geo4d.models.geo4d.conditioning import ContextConstants
from geo4d.models.geo4d.config import Geo4DConfig, full, small
from geo4d.models.geo4d.options import PRESETS, Geo4DOptions
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.geo4d.weights import make_parts
from geo4d.models.layers import hold_weights
from geo4d.models.moge.config import MoGeConfig, MoGeOptions
from geo4d.models.moge.model import MoGe
from geo4d.types import EvidenceMaps, Window

CONSTANTS = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
"""Buffers that are no weights, by the last part of their name."""


def random_weights(module: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Storage on the device for a module on the meta device, filled with values of a fixed seed.

    Linear and convolution layers are cast to ``dtype`` before they get storage, so that memory never holds them twice.
    """
    hold_weights(module, dtype)
    module.to_empty(device=device)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
            values = torch.randn(parameter.shape, generator=generator, device=device)
            if parameter.ndim >= 2:
                values *= (parameter.numel() / parameter.shape[0]) ** -0.5
            else:
                values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
            parameter.copy_(values)
        for name, buffer in module.named_buffers():
            last = name.rpartition(".")[2]
            if last == "position_ids":
                buffer.copy_(torch.arange(buffer.shape[-1], device=device)[None])
            elif last in CONSTANTS:
                buffer.copy_(torch.tensor(CONSTANTS[last], device=device).reshape(buffer.shape))
            else:
                raise ValueError(f"expected to know every buffer of the network, got {name!r}")
    return module.eval().requires_grad_(False)


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Smooth pictures [T, H, W, 3] in [0, 1] on the CPU; neighbours are alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 3, 6, 8, generator=generator)
    fine = nn.functional.interpolate(coarse, (count, *size), mode="trilinear")
    return fine[0].permute(1, 2, 3, 0).contiguous().clamp(0, 1)


def window(count: int, size: tuple[int, int], index: int = 0) -> Window:
    """A window of such pictures."""
    frames = torch.arange(count)
    return Window(pictures(count, size, index), frames, frames.double() / 24, index, 24.0)


# Geo4D ----------------------------------------------------------------------------------------------------------------


def geo4d_config(smallest: bool) -> Geo4DConfig:
    if not smallest:
        return full()
    narrow = replace(
        small().unet, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1,), initial_heads=2
    )
    vae = replace(small().vae, channel_mult=(1, 1, 1, 1), num_res_blocks=1)
    return replace(small(), unet=narrow, vae=vae)


def geo4d_size(smallest: bool) -> tuple[int, int]:
    return (64, 64) if smallest else (320, 512)


def geo4d_constants(config: Geo4DConfig, device: torch.device) -> ContextConstants:
    """Context tokens of the released shapes: 77 of the text, 16 of a picture for each of 16 frames."""
    generator = torch.Generator(device).manual_seed(1)
    width = config.unet.context_dim
    shapes = [(1, length, width) for length in (77, 77, 256)]
    return ContextConstants(*(torch.randn(s, generator=generator, device=device) for s in shapes))


def geo4d_predictor(
    device: torch.device, dtype: str, smallest: bool, preset: str = "default", **options: Any
) -> Geo4DPredictor:
    """The whole network; five steps, or one at the smallest size."""
    config = geo4d_config(smallest)
    height, width = geo4d_size(smallest)
    settings: dict[str, Any] = {"num_steps": 1 if smallest else 5, "height": height, "width": width}
    parts: dict[str, Any] = {
        name: random_weights(module, device, DTYPES[dtype])
        for name, module in make_parts(config, ["unet", "vae", "point_vae"]).items()
    }
    return Geo4DPredictor(
        config,
        parts["unet"],
        parts["vae"],
        parts["point_vae"],
        geo4d_constants(config, device),
        options=Geo4DOptions(**(PRESETS[preset] | settings | options)),
        device=device,
        dtype=DTYPES[dtype],
    )


# GeometryCrafter and its prior ----------------------------------------------------------------------------------------


def crafter_size(smallest: bool) -> tuple[int, int]:
    return (64, 128) if smallest else (448, 768)


def crafter_networks(device: torch.device, smallest: bool, variant: str = "diff") -> dict[str, Any]:
    """UNet, point-map VAE, image VAE and image encoder in float32."""
    from geo4d.models.geometrycrafter.embedding import build_image_encoder
    from geo4d.models.geometrycrafter.unet import FrameTokenUNet
    from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
    from geo4d.training.tasks.geometrycrafter.networks import Sizes, smallest_sizes

    sizes = smallest_sizes() if smallest else Sizes()
    with torch.device("meta"):
        networks = {
            "unet": FrameTokenUNet(**asdict(sizes.unet_for(variant))),  # type: ignore[arg-type]
            "point_map_vae": PointMapVAE(sizes.point_map_vae),
            "image_vae": ImageVAE(sizes.image_vae, with_decoder=False),
            "image_encoder": build_image_encoder(sizes.image_encoder),
        }
    return {name: random_weights(network, device) for name, network in networks.items()}


def crafter_system(device: torch.device, smallest: bool, **settings: Any) -> Any:
    """All networks of the generative variant, five steps; types as published unless ``settings`` say otherwise."""
    from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, SchedulerConfig
    from geo4d.models.geometrycrafter.stages import GeometryCrafter

    config = GeometryCrafterConfig(num_steps=1 if smallest else 5)
    config = replace(config, **({"unet_dtype": "float32"} if device.type == "cpu" else {}) | settings)
    system = GeometryCrafter(
        "diff",
        **crafter_networks(device, smallest),
        scheduler=SchedulerConfig(),
        config=config,
        device=device,
    )
    return system.to("cpu") if config.offload else system


def moge_network(device: torch.device, smallest: bool) -> MoGe:
    """MoGe-1 with ViT-L, or the small one of the recorded cases."""
    config = MoGeConfig()
    if smallest:
        golden = Path(__file__).resolve().parents[2] / "tests" / "models" / "moge" / "golden" / "pinned.npz"
        with np.load(golden) as arrays:
            config = MoGeConfig.from_published(json.loads(arrays["config"].tolist()))
    with torch.device("meta"):
        network = MoGe(config)
    random_weights(network, device)
    with torch.no_grad():  # an exponential stands behind the head
        for branch in network.head.output_block:
            branch[2].weight *= 0.05  # type: ignore[operator]
    return network


def moge_prior(device: torch.device, smallest: bool, **options: Any) -> Any:
    """The network in the role of the per-frame prior."""
    from geo4d.models.moge.pipeline import MoGePrior

    return MoGePrior(moge_network(device, smallest), MoGeOptions(**options), device)


def plane_prior(rgb: Tensor) -> EvidenceMaps:
    """Points of a tilted plane with a hole in the mask: what a prior of random weights would not give."""
    count, height, width = rgb.shape[:3]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    z = 3 + x + 0.5 * rgb.mean(-1)
    points = torch.stack([0.6 * x * z, 0.4 * y * z, z], dim=-1)
    mask = torch.ones(count, height, width, dtype=torch.bool)
    mask[:, : height // 8, : width // 8] = False
    return EvidenceMaps(points=points, mask=mask)


def relative_error(found: Tensor, reference: Tensor) -> dict[str, float]:
    """Relative L2 and largest difference, and the share of values that are not finite."""
    found, reference = found.detach().double().cpu(), reference.detach().double().cpu()
    finite = torch.isfinite(found) & torch.isfinite(reference)
    difference = (found - reference)[finite]
    norm = float(reference[finite].norm())
    return {
        "rel_l2": float(difference.norm()) / max(norm, 1e-30),
        "max_abs": float(difference.abs().max()) if difference.numel() else 0.0,
        "not_finite": float((~finite).double().mean()),
    }
