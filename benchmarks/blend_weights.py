"""Weights between two trained models of one line: the network is a weighted mean, the rest comes from the first.

    python benchmarks/blend_weights.py FIRST SECOND --share 0.7 -o FOLDER

SECOND must have been trained on from FIRST. Their mean is often better than either where the later training saw another
mixture of pictures (here: upright and turned ones) than the earlier.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.weights import load_model, save_model


def blend(first: TinyModel, second: TinyModel, share: float) -> TinyModel:
    """``first`` with its network moved by ``share`` of the way to that of ``second``."""
    if first.config != second.config:
        raise ValueError(f"expected two models of the same sizes, got {first.config} and {second.config}")
    target = second.network.state_dict()

    def moved(name: str, value: Tensor) -> Tensor:
        return torch.lerp(value, target[name], share) if value.is_floating_point() else value

    first.network.load_state_dict(
        {name: moved(name, value) for name, value in first.network.state_dict().items()}
    )
    return first


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, required=True, help="of the second, 0 to 1")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    options = parser.parse_args()
    model = blend(load_model(options.first), load_model(options.second), options.share)
    options.output.mkdir(parents=True, exist_ok=True)
    save_model(model, options.output / "model.safetensors")


if __name__ == "__main__":
    main()
