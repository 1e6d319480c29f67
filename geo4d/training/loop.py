"""One training loop for every stage and model family, on accelerate: one or many processes, CPU or GPU.

The loop knows a ``Task``: a module whose ``forward(batch)`` is the loss, with a few hooks. Everything random in a task
is a function of the sample numbers in the batch, so a resumed run repeats the interrupted one exactly, and two
processes with half the batch each repeat one process.
"""

import datetime
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from geo4d.errors import MissingExtraError, OutputError, TrainingError
from geo4d.formats.locks import FileLock
from geo4d.models.layers import flatten_time_convs
from geo4d.training.saving import Progress, kept_on_failure
from geo4d.training.ways import Way, open_way

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast and how often.

    Attributes:
        num_steps: optimiser steps of the whole stage.
        batch: windows per optimiser step, over all processes and micro-batches.
        accumulate: micro-batches per optimiser step and process.
        learning_rate: after the warm-up.
        warmup: steps of the linear warm-up.
        decay: share of the steps at the end over which the rate falls linearly to ``final_rate`` of its value.
        final_rate: see ``decay``.
        weight_decay: on matrices and kernels only.
        betas: of AdamW.
        clip_norm: bound on the gradient norm; 0 for none.
        ema_decay: of the moving average of the weights; rises to this value over the first steps.
        precision: autocast type.
        checkpointing: recompute activations in the backward pass to save memory.
        log_every: steps between log lines.
        evaluate_every: steps between evaluations; 0 for none but the last.
        export_every: steps between exported weights, beside those of every evaluation; 0 for none but these.
        save_every: steps between saved states; 0 for none but the last.
        max_minutes: stop (and save) after this many minutes of wall clock; 0 for no limit.
        threads: torch threads per process; 0 leaves them as they are.
        parallel: over several processes: ``ddp`` has everything in each, ``fsdp`` its share (see ``sharding``), ``zero2``
            its share of gradients and optimiser, ``zero3`` of weights, too (see ``zero``).
        eight_bit: keep the optimiser's state in 8 bits (bitsandbytes).
        seed: of the weights' start and of all noise.
    """

    num_steps: int
    batch: int
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.2
    final_rate: float = 0.05
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["no", "bf16"] = "bf16"
    checkpointing: bool = False
    log_every: int = 50
    evaluate_every: int = 1000
    export_every: int = 0
    save_every: int = 500
    max_minutes: float = 0.0
    threads: int = 0
    parallel: Literal["ddp", "fsdp", "zero2", "zero3"] = "ddp"
    eight_bit: bool = False
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm-up, plateau, linear decay."""
        start = self.num_steps * (1 - self.decay)
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        left = 1.0 if step < start else 1 - (step - start) / max(1.0, self.num_steps - start)
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * left)


@runtime_checkable
class Splittable(Protocol):
    """A batch the loop can cut and move."""

    def to(self, device: torch.device | str) -> Any:
        """The batch on a device."""
        ...

    def split(self, parts: int) -> list[Any]:
        """Micro-batches of equal size, together the batch."""
        ...

    def describe(self) -> str:
        """Which clips it holds, for messages."""
        ...


class Task(nn.Module):
    """What a stage trains. ``forward(batch)`` gives the loss and named parts of it.

    Attributes:
        blocks: names of the classes of blocks that ``fsdp`` gathers one by one.
    """

    blocks: tuple[str, ...] = ()

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) of a batch, and named parts of it (scalars) for the log.

        Raises:
            TypeError: the subclass does not define it.
        """
        raise TypeError(f"{type(self).__name__} must define forward(batch)")

    def trained(self) -> Mapping[str, nn.Parameter]:
        """Parameters that change; all others stay frozen."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores, and pictures [3, H, W] in [0, 1], with the weights as they are."""
        return {}, {}

    def export(self, folder: Path) -> None:
        """Write the weights as they are, in the format in which the package reads them."""


BatchSource = Callable[[int, int, int], Iterator[Splittable]]
"""(first step, rank, number of processes) -> this process's share of the batch of each step."""


def train(
    task: Task,
    batches: BatchSource,
    config: LoopConfig,
    folder: Path,
    *,
    resume: bool = False,
    device: str | None = None,
) -> Progress:
    """Train a task until its steps or minutes are over.

    Writes to ``folder``: ``state/`` (exact state to resume from), ``weights/`` (moving average, as the package reads
    it), ``log.jsonl`` (loss and scores), ``config.json`` and TensorBoard events.

    Args:
        task: what to train.
        batches: gives the batches.
        config: see ``LoopConfig``.
        folder: of the run.
        resume: go on from ``folder/state``; without a state there, start.
        device: ``cpu`` keeps accelerators out; None lets accelerate choose.
    Raises:
        OutputError: the folder already holds a run and ``resume`` is not set, or another process trains there.
        TrainingError: the loss of a batch is not finite. The state saved last stays as it is.
        ValueError: the batch does not divide over processes and micro-batches; or one process alone, or an 8-bit
            optimiser, for a way that shares.
        InputError: the saved state is that of another way to train in parallel.
        MissingExtraError: accelerate or tensorboard is not installed; or bitsandbytes, for ``eight_bit``; or deepspeed.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(error.name or "accelerate", "train", "training") from error

    if config.threads:
        torch.set_num_threads(config.threads)
    # Autocast is ours: accelerate's is fixed for the life of the process, but stages may follow each other in one.
    # A window of one frame leaves layers that mix frames without a gradient; other processes must not wait for it.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision="no", cpu=device == "cpu", kwargs_handlers=[unused])
    if config.precision == "bf16" and accelerator.device.type == "cpu":
        flatten_time_convs(task)
    processes = accelerator.num_processes
    if config.batch % (processes * config.accumulate):
        raise ValueError(
            f"expected a batch that divides over {processes} processes with {config.accumulate} micro-batches, "
            f"got {config.batch}"
        )
    with _folder_of_run(folder, resume, alone=accelerator.is_main_process):
        way = open_way(task, config, folder, accelerator)
        if (folder / "state").exists():
            logger.info("resumed at step %d", way.progress.step)
        run = _Run(config, folder, accelerator, task, way)
        if accelerator.is_main_process:
            run.writer = SummaryWriter(str(folder))
            (folder / "config.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
        try:
            _go(run, batches(way.progress.step, accelerator.process_index, processes))
        finally:
            if run.writer is not None:
                run.writer.close()
            way.close()
        accelerator.wait_for_everyone()
    return way.progress


@dataclass
class _Run:
    """What lives as long as a run.

    Attributes:
        way: how the task is trained over processes.
        writer: of TensorBoard, on the main process.
    """

    config: LoopConfig
    folder: Path
    accelerator: Any
    task: Task
    way: Way
    writer: Any = None

    @property
    def progress(self) -> Progress:
        """Where it stands."""
        return self.way.progress

    def autocast(self) -> Any:
        """A context in which the forward pass has the precision of the configuration."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, self.config.precision == "bf16")


def _now() -> float:
    return time.monotonic()


@dataclass
class _Sums:
    """What was measured since the last line of the log."""

    parts: dict[str, Tensor] = field(default_factory=dict)
    waited_s: float = 0.0
    since: float = field(default_factory=_now)

    def add(self, name: str, value: Tensor) -> None:
        self.parts[name] = self.parts[name] + value if name in self.parts else value


@contextmanager
def _folder_of_run(folder: Path, resume: bool, *, alone: bool) -> Iterator[None]:
    """The folder, made if missing; with ``alone``, no other run writes there meanwhile."""
    state, old = folder / "state", folder / "state.old"
    if old.exists() and not state.exists():
        os.replace(old, state)  # the run ended between the two renames of a save
    if state.exists() and not resume:
        raise OutputError(f"{folder} already holds a run; resume it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock.take(folder / "lock") if alone else None
    if alone and lock is None:
        raise OutputError(f"another process trains in {folder}; wait for its end or choose another folder")
    try:
        yield
    finally:
        if lock is not None:
            lock.remove()


def _go(run: _Run, source: Iterator[Splittable]) -> None:
    """Steps until they or the minutes are over, with what is due between them."""
    config, progress = run.config, run.progress
    base_seconds, base_cpu = progress.seconds, progress.cpu_seconds
    started, cpu_started = time.monotonic(), time.process_time()
    sums = _Sums()
    run.way.wrapped.train()
    while progress.step < config.num_steps:
        norm = _step(run, source, sums)
        progress.step += 1
        progress.seconds = base_seconds + time.monotonic() - started
        progress.cpu_seconds = base_cpu + time.process_time() - cpu_started
        late = bool(config.max_minutes) and time.monotonic() - started > 60 * config.max_minutes
        over = progress.step >= config.num_steps or late
        if progress.step % config.log_every == 0 or over:
            _log(run, sums, norm)
            sums = _Sums()
        if over or (config.evaluate_every and progress.step % config.evaluate_every == 0):
            _evaluate(run)
        elif config.export_every and progress.step % config.export_every == 0:
            _evaluate(run, scored=False)
        if over or (config.save_every and progress.step % config.save_every == 0):
            run.way.save(run.folder)
        if over:
            break


def _step(run: _Run, source: Iterator[Splittable], sums: _Sums) -> Tensor | None:
    """One step of the optimiser; the norm of its gradient where it is bounded."""
    config, way = run.config, run.way
    before = time.monotonic()
    batch = next(source).to(run.accelerator.device)
    sums.waited_s += time.monotonic() - before
    for group in way.optimiser.param_groups:
        group["lr"] = config.rate(run.progress.step)
    pieces = batch.split(config.accumulate)
    for index, piece in enumerate(pieces):
        with way.synchronised(last=index == len(pieces) - 1):
            with run.autocast():
                loss, parts = way.wrapped(piece)
            _require_finite(loss, parts, piece, run.progress.step)
            way.backward(loss / len(pieces))
        for name, value in {"loss": loss, **parts}.items():
            sums.add(name, value.detach().float() / len(pieces))
    norm, taken = way.step(config.clip_norm)
    if taken:
        way.average.update(way.parameters)
    else:
        # The loss was finite; a single overflow on the way back must not end a run of hours. It is counted and shown.
        shown = float("nan") if norm is None else float(norm)
        logger.warning("step %d skipped: gradient norm %s", run.progress.step, shown)
        sums.add("skipped", torch.ones(()))
    return norm


def _log(run: _Run, sums: _Sums, norm: Tensor | None) -> None:
    """Means over the steps since the last line."""
    config, accelerator, step = run.config, run.accelerator, run.progress.step
    since = step % config.log_every or config.log_every
    means = {
        name: float(accelerator.reduce(value.to(accelerator.device), "mean")) / since
        for name, value in sums.parts.items()
    }
    if norm is not None:
        means["gradient_norm"] = float(norm)
    means |= {"rate": config.rate(step - 1), "waited_s": sums.waited_s / since}
    took = (time.monotonic() - sums.since) / since
    means["windows_per_s"] = config.batch / max(took, 1e-9)
    means["left_s"] = took * (config.num_steps - step)
    _write(run, means)


def _require_finite(loss: Tensor, parts: Mapping[str, Tensor], piece: Splittable, step: int) -> None:
    if math.isfinite(float(loss.detach())):
        return
    bad = [name for name, value in parts.items() if not math.isfinite(float(value.detach()))]
    raise TrainingError(
        f"the loss of step {step} is {float(loss.detach())} ({', '.join(bad) or 'no part by itself'}) on "
        f"{piece.describe()}; the state saved last is kept. Look at these clips (geo4d data check), or lower the rate, "
        "then go on with --resume"
    )


def _write(run: _Run, values: Mapping[str, float]) -> None:
    folder, writer, progress, num_steps = run.folder, run.writer, run.progress, run.config.num_steps
    if writer is None:
        return
    for name, value in values.items():
        writer.add_scalar(name, value, progress.step)
    writer.flush()
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(
            json.dumps({**progress.state_dict(), **{k: float(f"{v:.5g}") for k, v in values.items()}}) + "\n"
        )
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "left_s")
    left = f", {datetime.timedelta(seconds=round(values['left_s']))} left" if "left_s" in values else ""
    logger.info("step %d of %d%s: %s", progress.step, num_steps, left, shown)


def _evaluate(run: _Run, *, scored: bool = True) -> None:
    """Score (unless told not to) and export the averaged weights, on the main process."""
    way, averaged = run.way, run.way.averaged()
    if averaged is not None:
        _export_whole(run, averaged)
    elif run.accelerator.is_main_process:
        task, step = run.task, run.progress.step
        way.average.swap(way.parameters)
        task.eval()
        with torch.no_grad(), run.autocast():
            scores, panels = task.evaluate() if scored else ({}, {})
        with kept_on_failure(run.folder, "weights", step):
            task.export(run.folder / "weights.partial")
        task.train()
        way.average.swap(way.parameters)
        for name, picture in panels.items():
            run.writer.add_image(name, picture.clamp(0, 1), step)
        if scores:
            named = {f"eval/{name}": value for name, value in scores.items()}
            _write(run, named)
    run.accelerator.wait_for_everyone()


def _export_whole(run: _Run, averaged: Mapping[str, Tensor]) -> None:
    """Export gathered weights, on the main process. They are not scored: held-out windows would need the whole task."""
    if run.way.twin is None:
        return
    run.way.twin.load_state_dict(averaged)
    run.way.twin.eval()
    with kept_on_failure(run.folder, "weights", run.progress.step):
        run.way.twin.export(run.folder / "weights.partial")
