"""Ways to train over processes: what the loop asks of one, data parallel through accelerate, and who opens which."""

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from geo4d.training.optimiser import MovingAverage, make_optimiser, step_if_finite
from geo4d.training.saving import Progress, check_state, check_way, save_state
from geo4d.training.sharding import open_shards
from geo4d.training.zero import open_zero

if TYPE_CHECKING:
    from geo4d.training.loop import LoopConfig, Task


@runtime_checkable
class Way(Protocol):
    """What trains a task over the processes there are, at the saved state if there is one.

    Attributes:
        wrapped: the task as it is called.
        optimiser: has ``param_groups`` whose ``lr`` is read at every step.
        parameters: by name what the average follows: the trained parameters, or this process's shares.
        average: of them.
        progress: of the run.
        twin: where no process has the whole task: on the main one, a copy on the CPU to export from.
    """

    wrapped: Any
    optimiser: Any
    parameters: Mapping[str, Tensor]
    average: MovingAverage
    progress: Progress
    twin: "Task | None"

    def synchronised(self, last: bool) -> Any:
        """A context for one micro-batch: gradients of all processes come together at the last one."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch's part of the loss."""
        ...

    def step(self, clip_norm: float) -> tuple[Tensor | None, bool]:
        """One step of the optimiser, which drops the gradients.

        Args:
            clip_norm: bound on the norm of the gradients; 0 for none.
        Returns:
            The norm of the gradients where it is bounded; whether the step was taken: not where the norm is not finite.
        """
        ...

    def save(self, folder: Path) -> None:
        """Replace the saved state in the folder of the run; all processes together."""
        ...

    def averaged(self) -> dict[str, Tensor] | None:
        """All weights, averaged, on the CPU of the main process; every process must ask.

        Returns:
            Empty in other processes; None where the task itself is whole in each.
        """
        ...

    def close(self) -> None:
        """Let go of what outlives the run."""
        ...


Open = Callable[["Task", "LoopConfig", Path, Any], Way]
"""(task, configuration, folder of the run, accelerator) -> the way at work."""


class Together:
    """Data parallel: every process has everything; see ``Way``."""

    def __init__(
        self, accelerator: Any, wrapped: Any, optimiser: Any, average: MovingAverage, progress: Progress
    ) -> None:
        self._accelerator = accelerator
        self.wrapped, self.optimiser, self.average, self.progress = wrapped, optimiser, average, progress
        self.parameters: Mapping[str, Tensor] = accelerator.unwrap_model(wrapped).trained()
        self.twin: Task | None = None

    def synchronised(self, last: bool) -> Any:
        """Accelerate's own."""
        return nullcontext() if last else self._accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor) -> None:
        """Accelerate's own."""
        self._accelerator.backward(loss)

    def step(self, clip_norm: float) -> tuple[Tensor | None, bool]:
        """Clip, step, drop the gradients."""
        found = (
            self._accelerator.clip_grad_norm_(list(self.parameters.values()), clip_norm)
            if clip_norm
            else None
        )
        return found, step_if_finite(self.optimiser, found)

    def save(self, folder: Path) -> None:
        """In accelerate's own form."""
        save_state(self._accelerator, folder, self.progress.step)

    def averaged(self) -> None:
        """None: the task is whole."""
        return

    def close(self) -> None:
        """Nothing outlives it."""


def open_together(task: "Task", config: "LoopConfig", folder: Path, accelerator: Any) -> Together:
    """Data parallel, or one process; see ``open_way``."""
    parameters, state = task.trained(), folder / "state"
    optimiser = make_optimiser(
        parameters, config.learning_rate, config.weight_decay, config.betas, eight_bit=config.eight_bit
    )
    average, progress = MovingAverage(parameters, config.ema_decay), Progress()
    wrapped, prepared = accelerator.prepare(task, optimiser)
    accelerator.register_for_checkpointing(average, progress)
    if state.exists():
        check_state(state, accelerator.unwrap_model(wrapped))
        accelerator.load_state(str(state))
    way = Together(accelerator, wrapped, prepared, average, progress)
    average.values = {name: value.to(way.parameters[name].device) for name, value in average.values.items()}
    return way


OPEN: dict[str, Open] = {
    "ddp": open_together,
    "fsdp": open_shards,
    "zero2": functools.partial(open_zero, 2),
    "zero3": functools.partial(open_zero, 3),
}
"""``LoopConfig.parallel`` -> who opens it."""


def open_way(task: "Task", config: "LoopConfig", folder: Path, accelerator: Any) -> Way:
    """Optimiser and average of a task over the processes there are, at the saved state if there is one.

    Args:
        task: is changed in place: moved, wrapped, or its parameters shared.
        folder: of the run; its state is read.
    Raises:
        ValueError: the task has nothing to train; or what shares needs several processes, and no 8-bit optimiser.
        InputError: the saved state is that of another way, or of a network of other sizes.
        MissingExtraError: bitsandbytes or deepspeed is needed and not installed.
    """
    parallel, processes = config.parallel, accelerator.num_processes
    if not task.trained():
        raise ValueError(f"expected a task with parameters to train, got {type(task).__name__} without")
    if parallel != "ddp" and config.eight_bit:
        raise ValueError(
            f"expected --eight-bit without --parallel {parallel}: its state cannot be shared over processes"
        )
    if parallel != "ddp" and processes < 2:
        raise ValueError(
            f"expected several processes for --parallel {parallel} (torchrun --nproc-per-node N ...), got one"
        )
    check_way(folder / "state", parallel)
    return OPEN[parallel](task, config, folder, accelerator)
