"""A small task for tests of the loop over several processes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from geo4d.training.loop import LoopConfig, Task

LOOP = LoopConfig(
    num_steps=2, batch=8, warmup=1, decay=0.0, learning_rate=3e-3, precision="no", log_every=1, evaluate_every=0,
    save_every=0, clip_norm=0.1,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Sample numbers."""

    samples: Tensor

    def to(self, device: torch.device | str) -> "Part":
        return Part(self.samples.to(device))

    def split(self, parts: int) -> list["Part"]:
        return [Part(part) for part in self.samples.chunk(parts)]

    def describe(self) -> str:
        return f"samples {self.samples.tolist()}"


@dataclass(frozen=True)
class Numbers:
    """Step s has the samples s * batch to (s + 1) * batch - 1."""

    batch: int

    def __call__(self, first_step: int, rank: int, processes: int) -> Iterator[Part]:
        share, step = self.batch // processes, first_step
        while True:
            first = step * self.batch + rank * share
            yield Part(torch.arange(first, first + share))
            step += 1


class Block(nn.Module):
    """A layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


class Wave(Task):
    """Two trained blocks and a head after a frozen layer; 4096 numbers a matrix, enough for 8 bits."""

    blocks = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.frozen = nn.Linear(1, 64).requires_grad_(False)
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(64, 1)

    def forward(self, batch: Part) -> tuple[Tensor, dict[str, Tensor]]:
        x = (batch.samples[:, None] % 37) / 37
        hidden = self.frozen(x)
        for layer in self.layers:
            hidden = layer(hidden)
        loss = (self.head(hidden) - torch.sin(6 * x)).square().mean()
        return loss, {}

    def export(self, folder: Path) -> None:
        save_file(dict(self.state_dict()), folder / "w.safetensors")


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]
