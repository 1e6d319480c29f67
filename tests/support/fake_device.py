"""A device that is not there: tensors say they lie on ``cuda:0`` and compute on the CPU, under the rules of a real one.

Within ``FakeDevice()`` every tensor made on or moved to ``cuda`` is a ``FakeTensor`` around one of the CPU. An operator
whose tensors lie on different devices fails as it would there (only numbers, tensors without axes, may come from the
CPU); so does ``numpy()``. What makes the host wait for the device (``item``, ``bool``, ``cpu``, ``nonzero``, an index by
a mask) is counted with the line that asked for it; what copies values to it, in ``copies``.

``FakeDevice(MPS)`` is one of ``mps`` in the same way: it refuses float64, as Apple's GPUs do.
"""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

import geo4d

DEVICE = torch.device("cuda", 0)
MPS = torch.device("mps", 0)
PACKAGE = Path(geo4d.__file__).parent

_WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_consecutive",
    "_unique2",
    "is_nonzero",
    "equal",
}
"""Operators that need a value on the host, beside copies to it and indices by masks."""

_FROM_ANYWHERE = {"copy_", "_to_copy", "_copy_from"}
"""Operators whose tensors may lie on different devices."""

_INDICES_FROM_CPU = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
"""Operators whose indices may come from the CPU."""


class FakeTensor(Tensor):
    """A tensor that says it is on ``DEVICE``; ``held`` holds its values."""

    held: Tensor
    place = DEVICE

    @staticmethod
    def __new__(cls, real: Tensor) -> "FakeTensor":
        if FakeTensor.place.type == "mps" and real.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
            )
        found = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device=FakeTensor.place,
            requires_grad=real.requires_grad,
        )
        found.held = real.detach()
        return found  # type: ignore[no-any-return]

    def __repr__(self, *unused: Any) -> str:
        return f"FakeTensor({self.held!r})"

    def numpy(self, *unused: Any, **also: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *unused: Any, **also: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"a tensor of the fake device was used outside of it, by {operator}")


class FakeGenerator(torch.Generator):
    """A generator that says it is on the device it was asked for; its numbers are the CPU's."""

    place = torch.device("cpu")

    def __new__(cls, device: Any = "cpu") -> "FakeGenerator":
        found: FakeGenerator = super().__new__(cls, "cpu")
        found.place = torch.device(device)
        return found

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place


class FakeDevice(TorchDispatchMode):
    """The device for the length of a ``with`` block.

    Attributes:
        waits: line of the package -> how often the host waited for the device there.
        copies: the same for copies of the host's tensors to it.
        attention_batches: sequences of each call of fused attention.
        operators: names of those that ran there, as torch's table of operators has them.
    """

    def __init__(self, place: torch.device = DEVICE) -> None:
        super().__init__()
        self.place = place
        self.operators: set[str] = set()
        torch._C._ensureCUDADeviceGuardSet()  # one that does nothing, where there is no CUDA
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.attention_batches: list[int] = []
        on_cuda = place.type == "cuda"
        self._patches = [] if on_cuda else [patch.object(torch.backends.mps, "is_available", lambda: True)]
        self._patches += [
            patch.object(torch.cuda, name, value)
            for name, value in {
                "is_available": lambda: True,
                "is_bf16_supported": lambda including_emulation=True: True,
                "device_count": lambda: 1,
                "current_device": lambda: 0,
                "synchronize": lambda *unused: None,
                "empty_cache": lambda: None,
                "is_initialized": lambda: True,
            }.items()
            if on_cuda
        ]
        self._patches.append(patch.object(torch, "Generator", FakeGenerator))
        self._factories = _Factories(self)

    def __enter__(self) -> "FakeDevice":
        FakeTensor.place = self.place
        for one in self._patches:
            one.start()
        # A module that moves gets new parameters: those of the CPU cannot turn into ours.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._factories.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._factories.__exit__(*exception)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        for one in self._patches:
            one.stop()
        FakeTensor.place = DEVICE

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = operator.__name__.partition(".")[0]
        fakes, plain = _tensors((args, kwargs))
        asked = kwargs.get("device")
        wants_fake = asked is not None and torch.device(asked).type == self.place.type
        if not fakes and not wants_fake:
            return operator(*args, **kwargs)
        self.operators.add(f"{name}.{operator._overloadname}")
        if not fakes and name == "_to_copy" and not kwargs.get("non_blocking"):
            self.copies[_place()] += 1
        if fakes:
            self._require_one_device(name, operator, args, plain)
            self._count(name, args, asked)
        if name == "_fused_sdp_choice":
            return 0  # plain matrix products: their operators are checked one by one
        if wants_fake:
            kwargs["device"] = torch.device("cpu")
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        real_args, real_kwargs = tree_map_only(FakeTensor, lambda t: t.held, (args, kwargs))
        if (
            name == "_softmax" and args[2]
        ):  # from 16 bits to float32 in one go, which the CPU has no kernel for
            real_args = (real_args[0].float(), args[1], False)
        found = operator(*real_args, **real_kwargs)
        if operator._schema.is_mutable and name.endswith("_"):
            _refresh(args[0])
            return args[0]
        if "out" in kwargs:
            return kwargs["out"]
        moved_away = name == "_to_copy" and asked is not None and not wants_fake
        if moved_away:
            return found
        return tree_map(lambda t: FakeTensor(t) if isinstance(t, Tensor) else t, found)

    def _require_one_device(self, name: str, operator: Any, args: Any, plain: list[Tensor]) -> None:
        if name in _FROM_ANYWHERE:
            return
        if name in _INDICES_FROM_CPU:
            _, plain = _tensors((args[0], *args[2:]))
        outside = [t for t in plain if t.ndim > 0]
        if outside:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {self.place} and cpu in {operator} "
                f"(shapes {[tuple(t.shape) for t in outside]})"
            )

    def _count(self, name: str, args: Any, asked: Any) -> None:
        away = name == "_to_copy" and asked is not None and torch.device(asked).type != self.place.type
        copied = name == "copy_" and isinstance(args[1], FakeTensor) and not isinstance(args[0], FakeTensor)
        masked = name in _INDICES_FROM_CPU and any(
            isinstance(i, FakeTensor) and i.dtype in (torch.bool, torch.uint8)
            for i in args[1]
            if i is not None
        )
        if name in _WAITS or away or copied or masked:
            self.waits[_place()] += 1


def _tensors(values: Any) -> tuple[list[Tensor], list[Tensor]]:
    flat = [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]
    return [t for t in flat if isinstance(t, FakeTensor)], [t for t in flat if not isinstance(t, FakeTensor)]


class _Factories(TorchFunctionMode):
    """Functions that make tensors: on the CPU, and ours from those. A torch without CUDA refuses otherwise."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        kind = self.device.place.type
        on_ours = bool(args) and isinstance(args[0], FakeTensor)
        if name in ("__getitem__", "__setitem__") and on_ours:
            return self._indexed(function, *args)
        if name in _NUMBERS and on_ours:
            self.device.waits[_place()] += 1
            return function(args[0].held)
        if name == "to" and kind == "mps":
            place, dtype, _, layout = torch._C._nn._parse_to(*args[1:], **kwargs)  # type: ignore[attr-defined]
            if place is not None and place.type == kind:
                return self._brought(args[0], dtype, layout)
        if name == "__invert__" and on_ours:
            return torch.bitwise_not(*args)
        if name == "scaled_dot_product_attention" and on_ours:
            self.device.attention_batches.append(args[0].shape[0])
            if kind == "mps":
                self.device.operators.add("_scaled_dot_product_attention_math_for_mps.default")
                return FakeTensor(function(*tree_map_only(FakeTensor, lambda t: t.held, args), **kwargs))
        if name in _WHOLE and on_ours:
            if name == "nonzero":
                self.device.waits[_place()] += 1
            self.device.operators.add(f"{name}.default")
            return tree_map_only(Tensor, FakeTensor, function(args[0].held, *args[1:], **kwargs))
        if name in _MADE:
            asked = kwargs.get("device")
            ours = asked is not None and torch.device(asked).type == kind
            _require_generator(name, kwargs.get("generator"), ours, kind)
            if not ours or (name == "as_tensor" and on_ours):
                return function(*args, **kwargs)
            kwargs["device"] = "cpu"
        elif name.startswith("new_") and on_ours:
            ours = torch.device(kwargs.pop("device", None) or self.device.place).type == kind
            args = (args[0].held, *args[1:])
        else:
            return function(*args, **kwargs)
        if ours and name in ("tensor", "as_tensor", "new_tensor"):
            self.device.copies[_place()] += 1
        found = function(*args, **kwargs)
        return FakeTensor(found) if ours else found

    def _brought(
        self, tensor: Tensor, dtype: torch.dtype | None, layout: torch.memory_format | None
    ) -> Tensor:
        """The tensor there: a torch that was built without this kind of device refuses to bring it."""
        held = tensor.held if isinstance(tensor, FakeTensor) else tensor
        there = held.to(dtype=dtype or held.dtype, memory_format=layout or torch.preserve_format)
        if there is held and isinstance(tensor, FakeTensor):
            return tensor
        self.device.operators.add("_to_copy.default")
        return FakeTensor(there.clone() if there is held else there)

    def _indexed(self, function: Any, whole: FakeTensor, index: Any, *value: Any) -> Any:
        """Views and elements through the tensor behind ours; an index by a mask makes the host wait."""
        ours, _ = _tensors(index)
        if any(i.dtype in (torch.bool, torch.uint8) for i in ours):
            self.device.waits[_place()] += 1
        if ours:
            self.device.operators |= {"index_put_.default"} if value else {"index.Tensor"}
        if value and isinstance(value[0], Tensor) and value[0].ndim and not isinstance(value[0], FakeTensor):
            raise RuntimeError("Expected all tensors to be on the same device, but found two in __setitem__")
        held = tree_map_only(FakeTensor, lambda t: t.held, (whole, index, *value))
        found = function(*held)
        return FakeTensor(found) if isinstance(found, Tensor) else found


_WHOLE = {"contiguous", "nonzero", "quantile"}
"""Functions of one tensor that a torch without CUDA cannot take apart for another device."""

_NUMBERS = {"__float__", "__int__", "__bool__", "__index__", "item", "tolist"}
"""What turns a tensor into a number of Python: the host waits for it."""

_MADE = {
    "arange", "as_tensor", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint", "randn", "randperm",
    "tensor", "zeros",
}  # fmt: skip
"""Functions that make a tensor on the device they are told."""


def _require_generator(name: str, generator: Any, ours: bool, kind: str) -> None:
    place = getattr(generator, "place", torch.device("cpu"))
    if generator is not None and (place.type == kind) != ours:
        asked = kind if ours else "cpu"
        raise RuntimeError(
            f"Expected a '{asked}' device type for generator but found '{place.type}' in {name}"
        )


def _refresh(value: Any) -> None:
    """Sizes after an operator in place."""
    if isinstance(value, FakeTensor) and tuple(value.shape) != tuple(value.held.shape):
        raise RuntimeError("operators in place that change a shape are not known to the fake device")


def _place() -> str:
    """The innermost line of the package."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE):
            return f"geo4d/{path.relative_to(PACKAGE).as_posix()}:{frame.lineno}"
    return "elsewhere"
