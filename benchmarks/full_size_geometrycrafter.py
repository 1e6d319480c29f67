"""GeometryCrafter's training at full size: gradient shapes on the meta device, real steps at full width with less depth.

    python benchmarks/full_size_geometrycrafter.py [--steps 20] [--output benchmarks/results/NAME.json]

On meta tensors (no numbers, no memory): one forward and backward of both UNets (every layer, 2 frames of 64x128) and of
the point-map VAE with the image decoder of its identity loss. With real numbers: the UNet with its first two widths (320,
640), one block each, on one batch, float32 and AdamW, against the loss of training.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from geo4d.models.geometrycrafter.config import ImageVAEConfig, PointMapVAEConfig, UNetConfig
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
from geo4d.training.tasks.geometrycrafter.losses import add_noise, edm_loss
from geo4d.training.tasks.geometrycrafter.networks import choose_trained


def gradients(network: torch.nn.Module, loss: torch.Tensor) -> dict[str, int]:
    """Backward, then how many parameters are trained and have a gradient of their shape.

    Raises:
        RuntimeError: one has none.
    """
    loss.backward()
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    missing = [
        name for name, value in trained.items() if value.grad is None or value.grad.shape != value.shape
    ]
    if missing:
        raise RuntimeError(f"expected a gradient for every trained parameter, none for {missing[:4]}")
    total = sum(value.numel() for value in network.parameters())
    return {"parameters": total, "with_gradient": sum(value.numel() for value in trained.values())}


def meta_unet(channels: int) -> dict[str, int]:
    with torch.device("meta"):
        # .to: the library makes the shares of its temporal layers on the CPU whatever the device is.
        unet = torch.nn.Module.to(FrameTokenUNet(**asdict(UNetConfig(in_channels=channels))), "meta")
        choose_trained(unet, temporal_only=False)
        inputs = (
            torch.zeros(1, 2, channels, 8, 16),
            torch.zeros(1),
            torch.zeros(1, 2, 1024),
            torch.zeros(1, 3),
        )
        return gradients(unet, unet(*inputs).square().mean())


def meta_vae() -> dict[str, int]:
    with torch.device("meta"):
        vae = PointMapVAE(PointMapVAEConfig()).to("meta")
        image_vae = ImageVAE(ImageVAEConfig(), with_decoder=True).to("meta")
        image_vae.requires_grad_(False)
        latent = vae.encode(torch.zeros(2, 4, 64, 128), image_vae)
        decoded = vae.decode(latent, 2)
        loss = sum(part.square().mean() for part in decoded) + image_vae.decode(latent, 2).square().mean()
        return gradients(vae, loss)


def real_steps(steps: int, learning_rate: float) -> dict[str, Any]:
    torch.manual_seed(0)
    config = replace(
        UNetConfig(),
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 2,
        up_block_types=("CrossAttnUpBlockSpatioTemporal",) * 2,
        block_out_channels=(320, 640),
        num_attention_heads=(5, 10),
        layers_per_block=1,
    )
    unet = FrameTokenUNet(**asdict(config))
    choose_trained(unet, temporal_only=False)
    latent, noise, video, prior = torch.randn(4, 1, 2, 4, 8, 8)
    sample = add_noise(latent, noise, torch.tensor([2.0]))
    seen = torch.cat([sample.scaled, video, prior], 2)
    tokens, ids = torch.randn(1, 2, 1024), torch.tensor([[7.0, 127.0, 0.02]])
    optimiser = torch.optim.AdamW(
        [p for p in unet.parameters() if p.requires_grad], learning_rate, fused=True
    )
    started, losses = time.process_time(), []
    for _ in range(steps):
        loss = edm_loss(unet(seen, sample.timestep, tokens, ids), sample, latent)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(round(float(loss.detach()), 5))
    return {
        "widths": list(config.block_out_channels),
        "parameters": sum(p.numel() for p in unet.parameters()),
        "learning_rate": learning_rate,
        "losses": losses,
        "cpu_seconds": round(time.process_time() - started, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="real steps; 0 for the meta device alone")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "meta": {"unet_diff": meta_unet(12), "unet_determ": meta_unet(8), "point_map_vae": meta_vae()},
    }
    if options.steps:
        result["real"] = real_steps(options.steps, options.learning_rate)
    print(json.dumps(result, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
