"""What a result holds: conventions, worlds, sizes, how its JSON is written, and how two of them differ."""

import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from geo4d.config import Precision

World = Literal["first camera", "given"]


WORLDS: dict[World, str] = {
    "first camera": "the first camera of each scene",
    "given": "that of the given poses",
}


def frame_bytes(size: tuple[int, int], precision: Precision, *, with_rgb: bool = False) -> int:
    """Most bytes that one frame of a result can take on disk: depth, confidence, dynamic (and colour)."""
    return size[0] * size[1] * (3 * (2 if precision == "float16" else 4) + (3 if with_rgb else 0)) + 4096


def plain(value: Any) -> Any:
    """JSON form of nested values: arrays become lists, paths strings, and what is not finite becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if _is_tensor(value):
        return plain(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``name: was A, is B`` for every setting that differs."""
    different: list[str] = []
    for name in sorted({*before, *now}):
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            different += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            different.append(f"{prefix}{name}: was {a}, is {b}")
    return different


def _is_tensor(value: Any) -> bool:
    """Without loading torch: where nobody has, nothing is a tensor. Who only watches workers begins in no time."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
