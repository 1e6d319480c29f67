"""Fully sharded data parallel: every process keeps its share of weights, gradients, optimiser and average.

It is torch's own ``fully_shard``, since accelerate's plugin does not run over processes of CPUs, where this is tested.
"""

import copy
import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from geo4d.formats.files import write_json
from geo4d.training.optimiser import MovingAverage, make_optimiser, step_if_finite
from geo4d.training.saving import PROGRESS, Progress, kept_on_failure

if TYPE_CHECKING:
    from geo4d.training.loop import LoopConfig, Task


class Shards:
    """Every process has its share; see ``Way`` in ``ways``."""

    def __init__(
        self, accelerator: Any, task: "Task", optimiser: Any, average: MovingAverage, twin: "Task | None"
    ) -> None:
        self._accelerator, self.optimiser, self.twin = accelerator, optimiser, twin
        self.wrapped: Any = task
        self.parameters: Mapping[str, Tensor] = task.trained()
        self.average, self.progress = average, Progress()

    def synchronised(self, last: bool) -> Any:
        """Shares of the gradients come together after the last one."""
        self.wrapped.set_requires_gradient_sync(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Torch's own."""
        self._accelerator.backward(loss)

    def step(self, clip_norm: float) -> tuple[Tensor | None, bool]:
        """Clip, step, drop the gradients."""
        values = list(self.parameters.values())
        found = whole(self._accelerator.clip_grad_norm_(values, clip_norm)) if clip_norm else None
        return found, step_if_finite(self.optimiser, found)

    def save(self, folder: Path) -> None:
        """Every process writes its share."""
        with kept_on_failure(folder, "state", self.progress.step, self._accelerator):
            save_shares(
                folder / "state.partial", self.wrapped, self.optimiser, self.average, self.progress.state_dict(),
                self._accelerator.is_main_process,
            )  # fmt: skip

    def averaged(self) -> dict[str, Tensor]:
        """Gathered one by one."""
        self.average.swap(self.parameters)
        state = whole_state(self.wrapped)
        self.average.swap(self.parameters)
        return state

    def close(self) -> None:
        """Nothing outlives it."""


def open_shards(task: "Task", config: "LoopConfig", folder: Path, accelerator: Any) -> Shards:
    """Share a task over several processes; see ``open_way`` in ``ways``."""
    twin = copy.deepcopy(task).cpu() if accelerator.is_main_process else None
    shard(task, task.blocks, accelerator.device, accelerator.num_processes)
    parameters = task.trained()
    optimiser = make_optimiser(parameters, config.learning_rate, config.weight_decay, config.betas)
    way = Shards(accelerator, task, optimiser, MovingAverage(parameters, config.ema_decay), twin)
    if (folder / "state").exists():
        way.progress.load_state_dict(load_shares(folder / "state", task, optimiser, way.average))
    return way


def shard(task: nn.Module, blocks: tuple[str, ...], device: torch.device, processes: int) -> None:
    """Share the parameters of a module over all processes, in place.

    Args:
        task: its ``forward`` is what is called; what else it calls must be called inside.
        blocks: names of the classes whose modules are gathered one by one, when their ``forward`` runs; what lies in none
            of them is gathered as long as that of the task runs.
        device: of this process.
        processes: at least two.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    task.to(device)
    for module in reversed(list(task.modules())):  # inner ones first
        if module is not task and type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh)
    fully_shard(task, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the shares of all processes; every process must ask."""
    return cast(Tensor, tensor.full_tensor()) if hasattr(tensor, "full_tensor") else tensor  # type: ignore[attr-defined]


def whole_state(task: nn.Module) -> dict[str, Tensor]:
    """All weights, on the CPU of the main process; empty elsewhere. Every process must ask."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(task, options=options))


def save_shares(
    folder: Path,
    task: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Any,
    progress: Mapping[str, Any],
    main: bool,
) -> None:
    """Every process writes its share of the state; the folder reads into any number of processes."""
    import torch.distributed.checkpoint as dcp

    dcp.save(_state(task, optimiser, average), checkpoint_id=str(folder))
    if main:
        write_json(folder / PROGRESS["fsdp"], {**progress, "average_updates": average.updates})


def load_shares(
    folder: Path, task: nn.Module, optimiser: torch.optim.Optimizer, average: Any
) -> dict[str, Any]:
    """Read what ``save_shares`` wrote, in place; gives the progress."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_state_dict

    state = _state(task, optimiser, average)
    dcp.load(state, checkpoint_id=str(folder))
    set_state_dict(task, optimiser, model_state_dict=state["task"], optim_state_dict=state["optimiser"])
    progress = dict(json.loads((folder / PROGRESS["fsdp"]).read_text(encoding="utf-8")))
    average.load_state_dict({"updates": progress.pop("average_updates"), "values": state["average"]})
    return progress


def _state(task: nn.Module, optimiser: torch.optim.Optimizer, average: Any) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optim = get_state_dict(task, optimiser)
    return {"task": model, "optimiser": optim, "average": dict(average.values)}
