"""What a stage needs in memory, before it starts: weights, gradients, optimiser and average by rule, activations by one
step on tensors without numbers.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geo4d.training.zero import BUCKET, LIVE

Parallel = Literal["one", "ddp", "fsdp", "zero2", "zero3"]

WAYS: dict[Parallel, str] = {
    "one": "one card",
    "ddp": "data parallel (--parallel ddp)",
    "fsdp": "FSDP, all shards (--parallel fsdp)",
    "zero2": "DeepSpeed ZeRO-2 (--parallel zero2)",
    "zero3": "DeepSpeed ZeRO-3 (--parallel zero3)",
}
"""Ways to train on one card or over several, in words."""

CARDS_GB = (24, 80)
"""Sizes of card that a plan is held against, in 10^9 bytes."""

USABLE = 0.92
"""Share of a card's memory that a plan may fill: the driver's context and what the allocator cannot use are the rest."""

FLOAT, HALF = 4, 2
"""Bytes of a number in single and in half precision."""

EIGHT_BIT = 1 + 4 / 256
"""Bytes of a number of an 8-bit optimiser's state: it keeps one factor in single precision for each 256."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside and are still held, and their peak.

    Args:
        known: tensors from before, which views inside do not make new.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = [tensor.untyped_storage() for tensor in known]
        self._held: dict[int, Any] = {storage._cdata: storage for storage in self._known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, then look at what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return

        def gone(_: Any) -> None:
            self._held.pop(key, None)
            self.now -= size

        self._held[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def activation_bytes(make: Callable[[], nn.Module], loss: Callable[[Any], Tensor], *, bf16: bool) -> int:
    """Peak of one forward and backward beyond weights and gradients, in bytes; nothing is computed.

    The step runs on tensors without numbers, so recomputation, autocast's copies of the weights and what a layer saves
    are those of the code itself. The kernels are those of a CPU: attention needs no matrix of all pairs there either.

    Args:
        make: makes the network; its parameters are the weights.
        loss: makes inputs, calls the network, gives a scalar.
        bf16: under autocast.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = make()
        # A gradient is dropped the moment it is there: the plan counts gradients by rule.
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
        with LiveBytes([*network.parameters(), *network.buffers()]) as live:
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                found = loss(network)
            found.backward()  # type: ignore[no-untyped-call]
    return live.peak


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


SHARING = ("fsdp", "zero2", "zero3")
"""Ways that share the optimiser over processes."""


@dataclass(frozen=True)
class Need:
    """What one process of a stage needs.

    Attributes:
        trained: parameters that are trained.
        frozen: parameters of networks that are used and not trained, a teacher included.
        outside: parameters that lie in no block, which FSDP gathers for the whole step.
        largest: parameters of the largest block, which it gathers when it is at work.
        activations: bytes, see ``activation_bytes``, for the micro-batch of one process.
        eight_bit: the optimiser's state has 8 bits.
    """

    trained: int
    frozen: int
    outside: int
    largest: int
    activations: int
    eight_bit: bool = False

    def parts(self, way: Parallel, processes: int) -> dict[str, float]:
        """Bytes on each card, by what they are for.

        Weights stay in single precision and the moving average beside them. Data parallel keeps its buckets of gradients
        beside the gradients. Frozen networks are on every card whole, but FSDP and ZeRO-3 share them, too, where they are
        part of the trained module; here they count whole. ZeRO keeps a flat copy of its share of the weights, which is
        what it updates, and a bucket of gradients on their way; ZeRO-3 gathers as many weights as it may hold.
        """
        share = processes if way in SHARING else 1
        weights = share if way in ("fsdp", "zero3") else 1
        gradients = share
        found = {
            "weights": FLOAT * self.trained / weights + FLOAT * self.frozen,
            "gradients": FLOAT * self.trained / gradients * (2 if way == "ddp" else 1),
            "optimiser": 2 * (EIGHT_BIT if self.eight_bit else FLOAT) * self.trained / share,
            "average": FLOAT * self.trained / weights,
            "activations": float(self.activations),
            "gathered": 0.0,
        }
        if way == "fsdp":
            # What lies outside with its gradients; the block at work with its own, and the next one.
            found["gathered"] = FLOAT * (2.0 * self.outside + 3.0 * self.largest)
        if way == "zero3":
            found["gathered"] = FLOAT * float(min(LIVE, self.trained))
        if way in ("zero2", "zero3"):
            found["optimiser"] += FLOAT * self.trained / share
            found["gradients"] += FLOAT * min(BUCKET, self.trained)
        return found

    def total(self, way: Parallel, processes: int) -> float:
        """Bytes on each card."""
        return sum(self.parts(way, processes).values())


@dataclass(frozen=True)
class MemoryPlan:
    """The needs of a stage, as it is set and in the ways that need less.

    Attributes:
        title: the stage, its window and its micro-batch, in words.
        rows: (what is different, need).
        processes: cards that the ways over several are planned for.
    """

    title: str
    rows: tuple[tuple[str, Need], ...]
    processes: int

    def lines(self, chosen: Parallel | None = None) -> list[str]:
        """A table for people.

        Args:
            chosen: the way of the run, whose rows are marked.
        """
        lines = [self.title]
        first = self.rows[0][1]
        lines.append(
            f"{first.trained:,} parameters are trained, {first.frozen:,} more are used; {self.processes} processes "
            "where there are several; GB (10^9 bytes) on each card"
        )
        head = f"{'way':44}{'weights':>9}{'gradients':>11}{'optimiser':>11}{'average':>9}{'activations':>13}{'total':>8}"
        for name, need in self.rows:
            lines += ["", f"{name}:", head + "".join(f"{f'{card} GB':>7}" for card in CARDS_GB)]
            for way, words in WAYS.items():
                if need.eight_bit and way in SHARING:
                    continue  # refused: its state cannot be shared
                parts, total = need.parts(way, self.processes), need.total(way, self.processes)
                shown = {**parts, "weights": parts["weights"] + parts["gathered"]}
                row = f"{words:44}{shown['weights'] / 1e9:9.1f}{shown['gradients'] / 1e9:11.1f}"
                row += f"{shown['optimiser'] / 1e9:11.1f}{shown['average'] / 1e9:9.1f}{shown['activations'] / 1e9:13.1f}"
                fits = "".join(f"{'yes' if total <= USABLE * card * 1e9 else 'no':>7}" for card in CARDS_GB)
                lines.append(f"{row}{total / 1e9:8.1f}{fits}{'  <- this run' if way == chosen else ''}")
        return lines


def plan_stage(
    title: str,
    make: Callable[[bool], nn.Module],
    loss: Callable[[Any], Tensor],
    *,
    frozen: int,
    blocks: tuple[str, ...],
    processes: int,
    bf16: bool,
    recomputes: bool,
) -> MemoryPlan:
    """Plan a stage with and without recomputation, and with an 8-bit optimiser.

    Args:
        make: with or without recomputed activations -> the network, what is trained marked.
        loss: makes inputs of one micro-batch, calls the network, gives a scalar.
        frozen: parameters of other networks.
        blocks: names of the classes that FSDP gathers one by one.
        recomputes: the network knows how to recompute activations.
    """
    with torch.device("meta"):
        network = make(False)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        idle = sum(p.numel() for p in network.parameters() if not p.requires_grad)
        inside = {id(p): 0 for m in network.modules() if type(m).__name__ in blocks for p in m.parameters()}
        outside = sum(p.numel() for p in network.parameters() if id(p) not in inside and p.requires_grad)
        found = [m for m in network.modules() if type(m).__name__ in blocks]
        largest = max((sum(p.numel() for p in m.parameters()) for m in found), default=0)
    plain = Need(
        trained, frozen + idle, outside, largest, activation_bytes(lambda: make(False), loss, bf16=bf16)
    )
    rows = []
    if recomputes:
        least = replace(plain, activations=activation_bytes(lambda: make(True), loss, bf16=bf16))
        rows.append(("activations recomputed", least))
        rows.append(("activations recomputed, 8-bit optimiser", replace(least, eight_bit=True)))
    rows.append(("activations kept", plain))
    return MemoryPlan(title, tuple(rows), processes)
