"""Small tasks for tests of the loop over several processes, and what starts these: ``python -m`` this, with JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geo4d.training.loop import LoopConfig, Task, train

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
            hidden = self.run_layer(layer, hidden)
        hidden = self.between(hidden, batch.samples)
        loss = (self.head(hidden) - torch.sin(6 * x)).square().mean()
        loss = self.finished(loss, batch.samples)
        return loss, {"error": loss}

    def run_layer(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        return layer(hidden)

    def between(self, hidden: Tensor, samples: Tensor) -> Tensor:
        return hidden

    def finished(self, loss: Tensor, samples: Tensor) -> Tensor:
        return loss

    def export(self, folder: Path) -> None:
        save_file(dict(self.state_dict()), folder / "w.safetensors")


class Recomputed(Wave):
    """Its activations are recomputed in the backward pass."""

    def run_layer(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        return checkpoint(layer, hidden, use_reentrant=False)


class Sometimes(Wave):
    """A layer at work in every other step alone, and there in the second of two micro-batches of two processes.

    Args:
        touched: the layer is called for nothing elsewhere, which gives it gradients of zero in place of none.
    """

    def __init__(self, touched: bool = False) -> None:
        super().__init__()
        self.extra, self.touched = Block(), touched

    def between(self, hidden: Tensor, samples: Tensor) -> Tensor:
        used = (samples // 8 % 2 == 0) & (samples % 4 >= 2)
        if not (self.touched or bool(used.any())):
            return hidden
        return hidden + used[:, None] * self.extra(hidden)


class Overflowing(Wave):
    """The gradients of the third step are infinite, its loss is not."""

    def between(self, hidden: Tensor, samples: Tensor) -> Tensor:
        if int(samples[0]) // 8 == 2:
            hidden.register_hook(lambda gradient: gradient * torch.inf)
        return hidden


class Broken(Wave):
    """The loss of the third step is no number."""

    def finished(self, loss: Tensor, samples: Tensor) -> Tensor:
        return loss * torch.nan if int(samples[0]) // 8 == 2 else loss


TASKS = {task.__name__: task for task in (Wave, Recomputed, Sometimes, Overflowing, Broken)}


def start(
    folder: Path, steps: int, parallel: str, processes: int = 2, task: str = "Wave", **changes: Any
) -> "subprocess.CompletedProcess[str]":
    """Train, or go on, over processes that really are several; a step is the whole batch.

    Args:
        changes: of the loop's configuration.
    """
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    said = json.dumps({"num_steps": steps, "parallel": parallel, **changes})
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    return subprocess.run(
        [*command, "-m", "tests.support.sharded", str(folder), task, said],
        env=environment, capture_output=True, text=True, timeout=300, check=False, cwd=root,
    )  # fmt: skip


def launch(
    folder: Path, steps: int, parallel: str, processes: int = 2, task: str = "Wave", **changes: Any
) -> str:
    """As ``start``; gives what was printed."""
    done = start(folder, steps, parallel, processes, task, **changes)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


def held(said: str) -> list[int]:
    """From what ``launch`` printed: numbers that each process holds of the parameters."""
    return [int(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith("processes ")]


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def _main() -> None:
    from accelerate.state import PartialState

    from geo4d.errors import leave

    folder, name, changes = sys.argv[1:]
    task = TASKS[name]()
    loop = replace(LOOP, **json.loads(changes))
    progress = train(task, Numbers(8), loop, Path(folder), resume=True, device="cpu")
    shares = [getattr(p, "ds_tensor", getattr(p, "_local_tensor", p)) for p in task.parameters()]
    holds = sum(share.numel() for share in shares)
    sys.stdout.write(f"processes {PartialState().num_processes} step {progress.step} holds {holds}\n")
    leave(0)


if __name__ == "__main__":
    _main()
