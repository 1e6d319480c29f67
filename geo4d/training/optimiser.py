"""AdamW over the trained parameters, in single precision or with a state of 8 bits, and their moving average."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geo4d.errors import MissingExtraError


def step_if_finite(optimiser: Any, norm: Tensor | None) -> bool:
    """Step unless the norm of the gradients is not finite, drop the gradients, and say whether the step was taken.

    Args:
        norm: None where the gradients are not bounded, so that nobody has asked for it.
    """
    taken = norm is None or math.isfinite(float(norm))
    if taken:
        optimiser.step()
    optimiser.zero_grad()
    return taken


class MovingAverage:
    """Exponential moving average of the trained parameters, float32."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {name: value.detach().float().clone() for name, value in parameters.items()}

    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Take the parameters in: kept is min(decay, (1 + n) / (10 + n)) of the average at its n-th update."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            current = [parameters[name].detach().float() for name in self.values]
            torch._foreach_lerp_(list(self.values.values()), current, 1 - keep)

    def swap(self, parameters: Mapping[str, Tensor]) -> None:
        """Exchange the averaged values and those of the parameters; a second call undoes the first."""
        with torch.no_grad():
            for name, value in self.values.items():
                current = parameters[name].detach().float().clone()
                parameters[name].copy_(value)
                value.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """Number of updates and averaged values."""
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave, in place."""
        self.updates = int(state["updates"])
        for name, value in self.values.items():
            value.copy_(state["values"][name])


def make_optimiser(
    parameters: Mapping[str, nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    *,
    eight_bit: bool = False,
) -> torch.optim.Optimizer:
    """AdamW whose weight decay is on matrices and kernels alone.

    Args:
        eight_bit: keep the state in 8 bits; the library leaves tensors of fewer than 4096 numbers in single precision.
    Raises:
        MissingExtraError: bitsandbytes is not installed, for ``eight_bit``.
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if not eight_bit:
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise MissingExtraError(error.name or "bitsandbytes", "train-8bit", "the 8-bit optimiser") from error
    optimiser: torch.optim.Optimizer = AdamW8bit(groups, lr=learning_rate, betas=betas)
    return optimiser
