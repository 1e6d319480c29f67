"""DeepSpeed's ZeRO: every process keeps its share of gradients and optimiser (2), or of weights and average as well (3).

It is DeepSpeed's own engine: accelerate's plugin quietly trains data parallel over processes of CPUs, where this is
tested. A state is whole and by name, so that any number of processes and either stage goes on from it.

Source: S. Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, 2020, section 5;
settings of the engine: https://www.deepspeed.ai/docs/config-json/.
"""

import copy
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geo4d.errors import MissingExtraError
from geo4d.formats.files import write_json
from geo4d.training.optimiser import MovingAverage, make_optimiser
from geo4d.training.saving import PROGRESS, Progress, check_state, kept_on_failure

if TYPE_CHECKING:
    from geo4d.training.loop import LoopConfig, Task

BUCKET = 2**25
"""Numbers that are sent together: gradients on their way to whose share they are, and weights on their way back."""

LIVE = 2**26
"""Numbers of gathered weights that stage 3 holds at once, with what it fetches ahead."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps for every weight."""


def settings(config: "LoopConfig", stage: int, processes: int) -> dict[str, Any]:
    """What the engine is told: single precision, autocast as elsewhere, nothing offloaded, no kernels of its own.

    Args:
        stage: 2 or 3.
    """
    return {
        "train_micro_batch_size_per_gpu": config.batch // (processes * config.accumulate),
        "gradient_accumulation_steps": config.accumulate,
        "gradient_clipping": config.clip_norm,
        # The engine turns off an autocast from outside. No module is "safe": else its weights would also travel in bf16.
        "torch_autocast": {
            "enabled": config.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_max_live_parameters": LIVE,
            "stage3_max_reuse_distance": LIVE,
        },
    }


class Zero:
    """A task under DeepSpeed's engine; see ``Way`` in ``ways``.

    Args:
        stage: 2 or 3.
        engine: what ``deepspeed.initialize`` made of the task.
        twin: with stage 3, on the main process: a copy of the task from before it was shared.
        decay: of the moving average.
    """

    def __init__(self, stage: int, engine: Any, accelerator: Any, twin: "Task | None", decay: float) -> None:
        self.wrapped, self.optimiser, self.twin = engine, engine.optimizer, twin
        self._stage, self._accelerator = stage, accelerator
        self._trained: Mapping[str, nn.Parameter] = engine.module.trained()
        shared = (
            {name: _share(value) for name, value in self._trained.items()} if stage == 3 else self._trained
        )
        self.parameters: Mapping[str, Tensor] = shared
        self.average, self.progress = MovingAverage(self.parameters, decay), Progress()

    @contextmanager
    def synchronised(self, last: bool) -> Iterator[None]:
        """The engine is told which micro-batch is the last; it sends gradients after each, since it keeps but shares."""
        self.wrapped.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """The engine's own; the loop has divided by the number of micro-batches."""
        self.wrapped.backward(loss, scale_wrt_gas=False)

    def step(self, clip_norm: float) -> tuple[Tensor | None, bool]:
        """The engine's own, which clips, and leaves out a step whose gradients are not finite, also without a bound."""
        self.wrapped.step()
        if self._stage == 3:
            # The engine's buffers keep the gradient of a parameter that the next step does not use, and would add it.
            from deepspeed.utils import safe_set_local_grad

            for value in self._trained.values():
                safe_set_local_grad(value, torch.zeros_like(_share(value)))
        found = torch.as_tensor(float(self.wrapped.get_global_grad_norm())) if clip_norm else None
        return found, bool(self.wrapped.was_step_applied())

    def save(self, folder: Path) -> None:
        """The main process writes weights, average and what AdamW keeps, whole, one after the other."""
        with kept_on_failure(folder, "state", self.progress.step, self._accelerator):
            state = folder / "state.partial"
            self._write(state, "model", self._weights())
            self._write(state, "average", {name: self._whole(name) for name in self.average.values})
            for key in MOMENTS if self.average.updates else ():
                self._write(state, key, self._moments(key))
            if self._accelerator.is_main_process:
                progress = {**self.progress.state_dict(), "average_updates": self.average.updates}
                write_json(state / PROGRESS["zero"], progress)

    def load(self, state: Path) -> None:
        """Go on from what ``save`` wrote; the weights have been read before the engine took the task."""
        progress = json.loads((state / PROGRESS["zero"]).read_text(encoding="utf-8"))
        updates = progress.pop("average_updates")
        self.progress.load_state_dict(progress)
        average = load_file(state / "average.safetensors")
        if self._stage == 3:
            average = {name: _share_of(average[name], value) for name, value in self._trained.items()}
        self.average.load_state_dict({"updates": updates, "values": average})
        if updates:
            self._load_moments(state, updates)

    def averaged(self) -> dict[str, Tensor] | None:
        """Stage 3 gathers them one by one; with stage 2 the task is whole."""
        if self._stage == 2:
            return None
        averaged = {name: self._whole(name) for name in self.average.values}
        weights = self._weights()
        return {**weights, **averaged} if self._accelerator.is_main_process else {}

    def close(self) -> None:
        """Take the engine's hooks off the task."""
        self.wrapped.destroy()

    def _weights(self) -> dict[str, Tensor]:
        """Weights and buffers, frozen ones too."""
        state = self.wrapped.module.state_dict(keep_vars=True)
        return {name: self._kept(_gathered(value, value)) for name, value in state.items()}

    def _whole(self, name: str) -> Tensor:
        """The average of a parameter."""
        return self._kept(_gathered(self._trained[name], self.average.values[name]))

    def _moments(self, key: str) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        self._link_moments()
        return {
            name: self._kept(safe_get_full_optimizer_state(value, key))
            for name, value in self._trained.items()
        }

    def _link_moments(self) -> None:
        """Tell stage 2 where they lie: its own look comes after the step of the first group, when others have none."""
        if self._stage == 2:
            self.optimiser._hp_optimizer_states_linked = False
            self.optimiser._lazy_init_hp_params_optimizer_state()

    def _load_moments(self, state: Path, updates: int) -> None:
        """Put them where torch would make them at its first step; one was taken for every update of the average."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        engine = self.optimiser
        flat = (
            engine.fp32_partitioned_groups_flat
            if self._stage == 3
            else engine.single_partition_of_fp32_groups
        )
        for share in flat:
            step = torch.tensor(float(updates), device=share.device)
            moments = {key: torch.zeros_like(share) for key in MOMENTS}
            engine.optimizer.state[share] = {"step": step, **moments}
        self._link_moments()
        for key in MOMENTS:
            found = load_file(state / f"{key}.safetensors")
            for name, value in self._trained.items():
                if self._stage == 3:
                    safe_set_local_optimizer_state(value, _share_of(found[name], value), key)
                else:
                    safe_set_full_optimizer_state(value, found[name].to(value.device), key)

    def _kept(self, tensor: Tensor) -> Tensor:
        """A copy on the CPU, in the main process alone."""
        if not self._accelerator.is_main_process:
            return torch.empty(0)
        return tensor.detach().to("cpu", copy=True).contiguous()

    def _write(self, state: Path, name: str, values: dict[str, Tensor]) -> None:
        if self._accelerator.is_main_process:
            save_file(values, state / f"{name}.safetensors")


def open_zero(stage: int, task: "Task", config: "LoopConfig", folder: Path, accelerator: Any) -> Zero:
    """Hand a task to DeepSpeed's engine; see ``open_way`` in ``ways``.

    Args:
        stage: 2 or 3.
    Raises:
        MissingExtraError: deepspeed is not installed.
    """
    initialize = load_engine(accelerator.device)
    state = folder / "state"
    if state.exists():
        check_state(state, task)
        task.load_state_dict(load_file(state / "model.safetensors"))
    twin = copy.deepcopy(task).cpu() if stage == 3 and accelerator.is_main_process else None
    optimiser = make_optimiser(task.trained(), config.learning_rate, config.weight_decay, config.betas)
    engine, *_ = initialize(
        model=task,
        optimizer=optimiser,
        config=settings(config, stage, accelerator.num_processes),
        dist_init_required=False,
    )
    way = Zero(stage, engine, accelerator, twin, config.ema_decay)
    if state.exists():
        way.load(state)
    return way


def load_engine(device: torch.device) -> Callable[..., Any]:
    """``deepspeed.initialize``, on a kind of device and over the processes that are there.

    Raises:
        MissingExtraError: deepspeed is not installed.
    """
    try:
        deepspeed = importlib.import_module("deepspeed")
        cpu = importlib.import_module("deepspeed.accelerator.cpu_accelerator")
    except ImportError as error:
        raise MissingExtraError(error.name or "deepspeed", "deepspeed", "training with ZeRO") from error
    if device.type == "cpu":
        # By itself it takes what the machine has; accelerate has imported it before we could say anything.
        deepspeed.accelerator.set_accelerator(cpu.CPU_Accelerator())
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Newer torch has other names for what the engine calls at every step, and says so every time.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # Its sums over shared memory would be compiled on the spot, which needs a compiler and prints; gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    initialize: Callable[..., Any] = deepspeed.initialize
    return initialize


def _share(parameter: Any) -> Tensor:
    """This process's share of a parameter under stage 3, [P]: its numbers in order, the last share is padded."""
    share: Tensor = parameter.ds_tensor
    return share


def _gathered(parameter: Any, value: Tensor) -> Tensor:
    """What all processes have shares of, in the parameter's shape; itself where it is not shared.

    Args:
        value: the parameter, or a share [P] of something of its shape.
    """
    if not hasattr(parameter, "ds_tensor"):
        return value
    share = _share(parameter) if value is parameter else value
    parts = [torch.empty_like(share) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, share.detach().contiguous())
    return torch.cat(parts)[: parameter.ds_numel].view(parameter.ds_shape)


def _share_of(whole: Tensor, parameter: Any) -> Tensor:
    """This process's share [P] of something of a parameter's shape; zeros where it is padded."""
    share, rank = torch.zeros_like(parameter.ds_tensor), torch.distributed.get_rank()
    found = whole.flatten()[rank * share.numel() : (rank + 1) * share.numel()]
    share[: found.numel()] = found
    return share
