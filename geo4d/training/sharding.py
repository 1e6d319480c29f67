"""Fully sharded data parallel: every process keeps its share of weights, gradients, optimiser and average.

It is torch's own ``fully_shard``, since accelerate's plugin does not run over processes of CPUs, where this is tested.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from geo4d.errors import InputError
from geo4d.formats.files import write_json

PROGRESS = "progress.json"


def shard(task: nn.Module, blocks: tuple[str, ...], device: torch.device, processes: int) -> None:
    """Share the parameters of a module over all processes, in place.

    Args:
        task: its ``forward`` is what is called; what else it calls must be called inside.
        blocks: names of the classes whose modules are gathered one by one, when their ``forward`` runs; what lies in none
            of them is gathered as long as that of the task runs.
        device: of this process.
    Raises:
        ValueError: there is one process alone.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if processes < 2:
        raise ValueError(
            "expected several processes for --parallel fsdp (torchrun --nproc-per-node N ...), got one"
        )
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
        write_json(folder / PROGRESS, {**progress, "average_updates": average.updates})


def load_shares(
    folder: Path, task: nn.Module, optimiser: torch.optim.Optimizer, average: Any
) -> dict[str, Any]:
    """Read what ``save_shares`` wrote, in place; gives the progress.

    Raises:
        InputError: the state was saved by data parallel training.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_state_dict

    if not (folder / PROGRESS).is_file():
        raise InputError(
            f"{folder} was saved without --parallel fsdp; go on without it, or start from its weights"
        )
    state = _state(task, optimiser, average)
    dcp.load(state, checkpoint_id=str(folder))
    set_state_dict(task, optimiser, model_state_dict=state["task"], optim_state_dict=state["optimiser"])
    progress = dict(json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    average.load_state_dict({"updates": progress.pop("average_updates"), "values": state["average"]})
    return progress


def _state(task: nn.Module, optimiser: torch.optim.Optimizer, average: Any) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optim = get_state_dict(task, optimiser)
    return {"task": model, "optimiser": optim, "average": dict(average.values)}
