"""One stage of Geo4D's full-size UNet under several engines and types: CPU time and error against float32.

    python benchmarks/block_engines.py [--width 640] [--output benchmarks/results/NAME.json]

Weights are drawn, inputs are noise; a window of 16 frames of 320x512. One thread; CPU seconds of the second and third
call. Rows of torchao, OpenVINO and nncf need these packages, and are left out with a line where they are not installed.
The error is that of what the stage adds to its input, relative, so it is that of drawn weights: what 8 bits do to trained
ones is in ``cheaper_sampling.py``.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cheaper_sampling import LINEAR_IN_8_BITS, in_8_bits, write_result
from geo4d.models.geo4d.blocks import CrossAttention
from geo4d.models.geo4d.config import UNetConfig
from geo4d.models.geo4d.unet import Stage
from geo4d.models.layers import hold_weights, use_channels_last

SIZES = {320: (40, 64), 640: (20, 32), 1280: (10, 16)}
FRAMES = 16


class Block(nn.Module):
    """A stage with its keys, as a function of hidden state and embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        config = UNetConfig()
        self.stage = Stage(config, width, width, attend=True)
        for value in self.stage.parameters():
            if value.ndim > 1:
                nn.init.normal_(value, std=value[0].numel() ** -0.5)
        tokens = torch.randn(1, config.text_tokens + config.image_tokens_per_frame, config.context_dim)
        crosses = [module for module in self.modules() if isinstance(module, CrossAttention)]
        self.keys = [cross.project(tokens, config.text_tokens) for cross in crosses]

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        return self.stage(hidden, embedding, self.keys, FRAMES, False)


def timed(call: Callable[[], Tensor], repeats: int = 2) -> tuple[float, Tensor]:
    """CPU seconds of a call after the first, and its result."""
    call()
    start = time.process_time()
    for _ in range(repeats):
        result = call()
    return (time.process_time() - start) / repeats, result.float()


def torch_rows(block: Block, hidden: Tensor, embedding: Tensor) -> dict[str, Callable[[], Tensor]]:
    """float32, bfloat16, and linear layers of the latter in 8 bits."""
    half = copy.deepcopy(block)
    hold_weights(use_channels_last(half), torch.bfloat16)
    half.keys = [tuple(part.bfloat16() for part in one) for one in block.keys]
    seen = hidden.bfloat16().contiguous(memory_format=torch.channels_last), embedding.bfloat16()
    rows: dict[str, Callable[[], Tensor]] = {
        "torch float32": lambda: block(hidden, embedding),
        "torch bfloat16": lambda: half(*seen),
    }
    for kind in LINEAR_IN_8_BITS:
        if (changed := in_8_bits(half, kind)) is not None:
            name = f"torch bfloat16, linear layers' {kind} in 8 bits (torchao)"
            rows[name] = lambda network=changed: network(*seen)
    return rows


def openvino_rows(block: Block, hidden: Tensor, embedding: Tensor) -> dict[str, Callable[[], Tensor]]:
    """float32, bfloat16, and everything in 8 bits after nncf."""
    try:
        import nncf
        import openvino
    except ImportError:
        print("openvino and nncf are not installed: no rows for them", flush=True)
        return {}
    core = openvino.Core()
    given = [hidden.numpy(), embedding.numpy()]

    def compiled(network: Any, precision: str) -> Callable[[], Tensor]:
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
        request = core.compile_model(network, "CPU", options).create_infer_request()
        return lambda: torch.from_numpy(request.infer(given)[0].copy())

    def converted() -> Any:
        return openvino.convert_model(block, example_input=(hidden, embedding))

    quantised = nncf.quantize(
        converted(), nncf.Dataset([tuple(given)] * 2), subset_size=2, model_type=nncf.ModelType.TRANSFORMER
    )
    return {
        f"OpenVINO {openvino.__version__} float32": compiled(converted(), "f32"),
        "OpenVINO bfloat16": compiled(converted(), "bf16"),
        f"OpenVINO, weights and activations in 8 bits (nncf {nncf.__version__})": compiled(quantised, "bf16"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, choices=list(SIZES), default=640)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        block = Block(options.width).eval().requires_grad_(False)
        hidden = torch.randn(FRAMES, options.width, *SIZES[options.width])
        embedding = torch.randn(FRAMES, 4 * UNetConfig().model_channels)
        calls = torch_rows(block, hidden, embedding) | openvino_rows(block, hidden, embedding)
        reference = block(hidden, embedding)
        for name, call in calls.items():
            seconds, found = timed(call)
            error = float((found - reference).norm() / (reference - hidden).norm())
            rows[name] = {"cpu_s": round(seconds, 3), "error": round(error, 6)}
            print(name, rows[name], flush=True)
    half = rows["torch bfloat16"]["cpu_s"]
    for row in rows.values():
        row["to_bfloat16"] = round(row["cpu_s"] / half, 3)
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/block_engines.py --width {options.width}",
        "torch": torch.__version__,
        "parameters": sum(value.numel() for value in block.parameters()),
        "rows": rows,
    }
    write_result(found, options.output)


if __name__ == "__main__":
    main()
