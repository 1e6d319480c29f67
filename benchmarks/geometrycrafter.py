"""Time, memory and rounding error of GeometryCrafter's stages at full size, with made-up weights.

    python benchmarks/geometrycrafter.py STAGE [...] [--size 448 768] [--frames 1] [--json FILE]

Stages: prior, encode, unet-diff, unet-determ, decode. Every stage and number type runs in a process of its own, so that
its peak memory is its own; the outputs of all types are compared with those of plain float32. With ``--json`` the
results of several calls gather in one file; ``--table FILE`` prints it beside the published times.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PUBLISHED_S = {"prior": 0.10, "encode": 0.04, "unet-diff": 0.04, "unet-determ": 0.01, "decode": 0.08}
"""Seconds per frame at 448x768 and 110 frames on an unnamed graphics card; generative variant with five steps."""

STEPS = {"unet-diff": 5, "unet-determ": 1}
DTYPES = ("float32", "bfloat16")


def fill(network: Any) -> None:
    """Cheap weights of the usual spread: one block of normal numbers, repeated."""
    import torch

    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or name.startswith("image_"):
            continue
        if tensor.ndim < 2:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        spread = tensor[0].numel() ** -0.5
        flat = tensor.view(-1)
        for start in range(0, len(flat), len(block)):
            part = flat[start : start + len(block)]
            part.copy_(block[: len(part)] * spread)


def make(build: Callable[[], Any], dtype: str, device: str) -> Any:
    """A network in its number type without ever holding it in a wider one."""
    import torch

    kind = getattr(torch, dtype)
    torch.set_default_dtype(kind)
    with torch.device("meta"):
        network = build()
    torch.set_default_dtype(torch.float32)
    network.to_empty(device="cpu")
    fill(network)
    return network.to(device).eval().requires_grad_(False)


def smooth(shape: tuple[int, ...], device: str) -> Any:
    """Seeded values in [0, 1] that vary over tens of pixels, as pictures do."""
    import torch
    import torch.nn.functional as F

    coarse = torch.rand(*shape[:-2], 12, 16, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=shape[-2:], mode="bicubic").clamp(0, 1).to(device)


def stage_prior(size: tuple[int, int], frames: int, dtype: str, device: str) -> Callable[[], Any]:
    """The network on its resized picture; what is compared is its raw output (three point channels and the mask)."""
    import torch
    import torch.nn.functional as F

    from geo4d.models.moge.config import MoGeConfig, MoGeOptions
    from geo4d.models.moge.infer import image_size
    from geo4d.models.moge.model import MoGe

    network = make(lambda: MoGe(MoGeConfig()), "float32", device)
    network.image_mean.fill_(0.45)
    network.image_std.fill_(0.225)
    network.cast(getattr(torch, dtype))
    image = smooth((frames, 3, *size), device)
    target = image_size(size, network.config, MoGeOptions())

    def run() -> Any:
        points, mask = network.raw(F.interpolate(image, size=target, mode="bicubic", antialias=True))
        return torch.cat([points, mask[:, None]], dim=1)

    return run


def stage_encode(size: tuple[int, int], frames: int, dtype: str, device: str) -> Callable[[], Any]:
    """CLIP, the image encoder on colour and on disparity, the point-map encoder."""
    import torch

    from geo4d.models.geometrycrafter.config import ImageEncoderConfig, ImageVAEConfig, PointMapVAEConfig
    from geo4d.models.geometrycrafter.embedding import build_image_encoder, embed_frames
    from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
    from geo4d.models.layers import use_channels_last

    image_vae = make(lambda: ImageVAE(ImageVAEConfig()), dtype, device)
    point_map_vae = make(lambda: PointMapVAE(PointMapVAEConfig()), dtype, device)
    del point_map_vae.decoder
    clip = make(lambda: build_image_encoder(ImageEncoderConfig()), dtype, device)
    positions = clip.vision_model.embeddings
    positions.register_buffer("position_ids", torch.arange(257, device=device)[None], persistent=False)
    use_channels_last(image_vae)
    use_channels_last(point_map_vae)
    image = 2 * smooth((frames, 3, *size), device) - 1
    maps = smooth((frames, 4, *size), device)

    def run() -> Any:
        parts = []
        for t in range(frames):
            one = slice(t, t + 1)
            parts.append(image_vae.encode(image[one]).flatten(1))
            parts.append(point_map_vae.encode(maps[one], image_vae).flatten(1))
            parts.append(embed_frames(image[one], clip).flatten(1))
        return torch.cat([part.float() for part in parts], dim=1)

    return run


def stage_unet(
    size: tuple[int, int], frames: int, dtype: str, device: str, channels: int
) -> Callable[[], Any]:
    """One step of one window of ``frames`` frames."""
    import dataclasses

    import torch

    from geo4d.models.geometrycrafter.config import UNetConfig
    from geo4d.models.geometrycrafter.unet import FrameTokenUNet

    config = dataclasses.asdict(UNetConfig(in_channels=channels))
    unet = make(lambda: FrameTokenUNet(**config), dtype, device)
    generator = torch.Generator().manual_seed(2)
    sample = torch.randn(1, frames, channels, size[0] // 8, size[1] // 8, generator=generator).to(device)
    tokens = torch.randn(1, frames, 1024, generator=generator).to(device)
    ids = torch.tensor([[7.0, 127.0, 0.02]], device=device)
    return lambda: unet(sample, 1.0, tokens, ids).float()


def stage_decode(size: tuple[int, int], frames: int, dtype: str, device: str) -> Callable[[], Any]:
    """One chunk of ``frames`` frames; what is compared is log depth, theta and mask together."""
    import torch

    from geo4d.models.geometrycrafter.config import PointMapVAEConfig
    from geo4d.models.geometrycrafter.vae import PointMapDecoder

    decoder = make(lambda: PointMapDecoder(PointMapVAEConfig()), "float32", device)
    decoder.cast(getattr(torch, dtype))
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(frames, 4, size[0] // 8, size[1] // 8, generator=generator).to(device)
    return lambda: torch.cat(decoder(latent, frames), dim=1)


def make_stage(stage: str, size: tuple[int, int], frames: int, dtype: str, device: str) -> Callable[[], Any]:
    """The measured call of a stage."""
    if stage.startswith("unet-"):
        return stage_unet(size, frames, dtype, device, 12 if stage == "unet-diff" else 8)
    return {"prior": stage_prior, "encode": stage_encode, "decode": stage_decode}[stage](
        size, frames, dtype, device
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one stage once in this process."""
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    run = make_stage(arguments.child, tuple(arguments.size), arguments.frames, arguments.dtype, device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device == "cuda":
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    cpu, wall = time.process_time(), time.perf_counter()
    out = run()
    if device == "cuda":
        torch.cuda.synchronize()
    result = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "rss_before_gb": before / 2**20,
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "finite": bool(torch.isfinite(out).all()),
    }
    if device == "cuda":
        result["peak_gpu_gb"] = torch.cuda.max_memory_allocated() / 2**30
    torch.save(out.cpu(), arguments.output)
    return result


def compare(stage: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All number types of a stage, each in a process of its own."""
    import torch

    row: dict[str, Any] = {"stage": stage, "size": list(arguments.size), "frames": arguments.frames}
    outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in arguments.dtypes:
            output = Path(folder) / dtype
            command = [
                sys.executable, __file__, stage, "--child", stage, "--dtype", dtype, "--size", *map(str, arguments.size),
                "--frames", str(arguments.frames), "--device", arguments.device, "--threads", str(arguments.threads),
                "--output", str(output),
            ]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row[dtype] = json.loads(done.stdout.splitlines()[-1])
            outputs[dtype] = torch.load(output, weights_only=True)
    reference = outputs.get("float32")
    for dtype, out in outputs.items():
        if reference is None or dtype == "float32":
            continue
        error = (out - reference).abs()
        row[dtype]["error"] = {
            "mean": float(error.mean()),
            "99_percent": float(error.flatten()[:: max(1, error.numel() // 10**6)].quantile(0.99)),
            "max": float(error.max()),
            "spread_of_float32": float(reference.std()),
        }
        row[dtype]["faster_cpu"] = row["float32"]["cpu_s"] / row[dtype]["cpu_s"]
        row[dtype]["faster_wall"] = row["float32"]["wall_s"] / row[dtype]["wall_s"]
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: ours beside the published split."""
    lines = [
        "| stage | size, frames | type | CPU s/frame | wall s/frame | peak RSS | faster (CPU) | error mean, 99 % "
        "| published s/frame |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        count = row["frames"] / STEPS.get(row["stage"], 1)
        for dtype in (d for d in ("float32", "bfloat16", "float16") if d in row):
            result = row[dtype]
            error = result.get("error")
            errors = "" if error is None else f"{error['mean']:.1e}, {error['99_percent']:.1e}"
            faster = f"{result['faster_cpu']:.2f}x" if "faster_cpu" in result else ""
            memory = f"{result['peak_rss_gb']:.2f} GB"
            if "peak_gpu_gb" in result:
                memory = f"{result['peak_gpu_gb']:.2f} GB on the device"
            lines.append(
                f"| {row['stage']} | {row['size'][0]}x{row['size'][1]}, {row['frames']} | {dtype} "
                f"| {result['cpu_s'] / count:.2f} | {result['wall_s'] / count:.2f} | {memory} | {faster} | {errors} "
                f"| {PUBLISHED_S[row['stage']]:.2f} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[[], *PUBLISHED_S], help="what to measure")
    parser.add_argument("--size", nargs=2, type=int, default=[448, 768], metavar=("H", "W"))
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=[*DTYPES, "float16"])
    parser.add_argument(
        "--threads", type=int, default=2, help="one gives the steadiest CPU seconds on a busy machine"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, default=None, help="gather results in this file")
    parser.add_argument("--table", type=Path, default=None, help="print a gathered file and stop")
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments)))
        return 0
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())["rows"]))
        return 0
    import torch

    gathered: dict[str, Any] = {"rows": []}
    if arguments.json and arguments.json.exists():
        gathered = json.loads(arguments.json.read_text())
    gathered["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
    gathered["threads"] = arguments.threads
    for stage in arguments.stages:
        row = compare(stage, arguments)
        same = [
            r
            for r in gathered["rows"]
            if (r["stage"], r["size"], r["frames"]) == (stage, row["size"], row["frames"])
        ]
        gathered["rows"] = [r for r in gathered["rows"] if r not in same] + [row]
        print(table([row]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(gathered, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
