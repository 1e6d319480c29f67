"""Published checkpoints without unpickling: a machine that knows tensors and plain containers, and refuses the rest.

Published checkpoints are pickles, which can run any code when loaded the usual way. :func:`read_torch_file` interprets
the pickle's instructions itself, knows only what tensors, numbers, text and plain containers need, and refuses everything
else by name. Nothing named in a file is ever imported or called.
"""

import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geo4d.errors import CheckpointError
from geo4d.models.store.container import Storage, TensorFile

MAX_COPIED_ITEMS = 10_000_000
"""Upper limit for what a checkpoint may copy from list to list."""

MAX_PICKLE_BYTES = 256 * 2**20
"""Upper limit for the part of a checkpoint that describes tensors; their data is not in it."""

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_TENSOR_BUILDERS = {
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}

_CONTAINERS = {"collections OrderedDict", "torch Size", "builtins set", "__builtin__ set"}

INERT_MODULES = (
    "omegaconf",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "deepspeed",
    "argparse",
    "pathlib",
    "typing",
    "numpy",
    "numpy.core.multiarray",
    "numpy._core.multiarray",
    "_codecs",
)
"""Packages whose objects training programs store beside weights (settings, counters). They are skipped unread: an
inert marker takes their place. Nothing is imported or called, so it does not matter what they would do."""

_INERT_NAMES = {
    "collections defaultdict",
    "collections Counter",
    "builtins dict",
    "builtins list",
    "builtins int",
    "builtins float",
    "builtins bool",
    "builtins str",
    "builtins object",
    "__builtin__ object",
    "copyreg _reconstructor",
    "copy_reg _reconstructor",
    "torch device",
}


@dataclass(frozen=True)
class Inert:
    """What stands in a read tree for an object that was skipped."""

    name: str


@dataclass(frozen=True)
class _Global:
    """A name in a pickle; never looked up."""

    name: str


class _Mark:
    pass


class _Interpreter:
    """A stack machine for the few pickle instructions that checkpoints consist of."""

    def __init__(self, file: TensorFile) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def refuse(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.file.path}: refused, {why}. Only tensors, numbers, text and plain containers are read; if you trust "
            "the file's origin, save its state dict alone (tensors by name) and convert that"
        )

    def run(self, data: bytes) -> Any:
        if len(data) > MAX_PICKLE_BYTES:
            raise self.refuse(f"its description of tensors is {len(data)} bytes long")
        try:
            for opcode, argument, position in pickletools.genops(data):
                if opcode.name == "STOP":
                    if len(self.stack) != 1:
                        raise self.refuse("its instructions end with a wrong stack")
                    return self.stack[0]
                handler = _HANDLERS.get(opcode.name)
                if handler is None:
                    raise self.refuse(f"it uses the instruction {opcode.name} at byte {position}")
                handler(self, argument)
        except (
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            UnicodeError,
            AttributeError,
        ) as error:
            raise self.refuse(f"its instructions are damaged ({type(error).__name__}: {error})") from error
        raise self.refuse("its instructions have no end")

    def pop_to_mark(self) -> list[Any]:
        items = []
        while not isinstance(top := self.stack.pop(), _Mark):
            items.append(top)
        return items[::-1]

    def pop(self) -> Any:
        top = self.stack.pop()
        if isinstance(top, _Mark):
            raise ValueError("a marker where a value is due")
        return top

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def named(self, name: str) -> None:
        """Push a name if it is on the list."""
        module, _, attribute = name.rpartition(" ")
        known = name in _TENSOR_BUILDERS or name in _CONTAINERS or name in _INERT_NAMES
        known = known or (module == "torch" and (attribute in _STORAGES or attribute in _DTYPE_NAMES))
        inert = any(module == m or module.startswith(m + ".") for m in INERT_MODULES)
        if not (known or inert):
            raise self.refuse(
                f"it names {module}.{attribute}, which is not on the list of what a checkpoint needs"
            )
        self.push(_Global(name))

    def call(self, target: Any, arguments: Any) -> Any:
        """The result of the few calls that stand for tensors and containers; an inert marker for skipped objects."""
        if isinstance(target, Inert):
            return target
        if not isinstance(target, _Global) or not isinstance(arguments, tuple):
            raise self.refuse("it calls something that is not a name")
        if target.name in ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"):
            return self.tensor(*arguments[:4])
        if target.name == "torch._utils _rebuild_parameter":
            if not isinstance(arguments[0], Tensor):
                raise self.refuse("a parameter is not a tensor")
            return arguments[0]
        if target.name == "collections OrderedDict":
            return self.ordered(arguments)
        if target.name == "torch Size":
            return tuple(self.copy_list(arguments))
        if target.name in ("builtins set", "__builtin__ set"):
            return self.copy_list(arguments)
        return Inert(target.name.replace(" ", "."))

    def copy_list(self, arguments: tuple[Any, ...]) -> list[Any]:
        """A copy of the one list or tuple of ``arguments``; the total of all copies is bounded."""
        items = arguments[0] if arguments else []
        if len(arguments) > 1 or not isinstance(items, list | tuple):
            raise self.refuse("it makes a container of something that is not a list")
        self.copied += len(items)
        if self.copied > MAX_COPIED_ITEMS:
            raise self.refuse("it copies lists without end")
        return list(items)

    def ordered(self, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        target: dict[Any, Any] = {}
        pairs = [self.copy_list((pair,)) for pair in self.copy_list(arguments)]
        self.push(target)
        self.set_items([item for pair in pairs for item in pair])
        self.stack.pop()
        return target

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        if not isinstance(storage, Storage) or type(offset) is not int:
            raise self.refuse("a tensor has no storage")
        if not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise self.refuse("a tensor has an impossible shape")
        numbers = (*size, *stride)
        if (
            any(type(n) is not int or n < 0 for n in (offset, *numbers))
            or len(size) != len(stride)
            or len(size) > 16
        ):
            raise self.refuse("a tensor has an impossible shape")
        numel = 1
        for n in size:
            numel *= n
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if numel and (last >= storage.numel or numel > storage.numel):
            raise self.refuse("a tensor reaches beyond its data")
        flat = self.file.storage(storage)
        return flat.as_strided(size, stride, offset) if numel else flat.new_empty(size)

    def persistent(self) -> None:
        identity = self.pop()
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise self.refuse("it refers to data in a way that torch.save does not")
        kind, key, numel = identity[1], identity[2], identity[4]
        if (
            not isinstance(kind, _Global)
            or type(numel) is not int
            or numel < 0
            or not re.fullmatch(r"\d+", str(key))
        ):
            raise self.refuse("it refers to data in a way that torch.save does not")
        self.push(Storage(_STORAGES[kind.name.removeprefix("torch ")], key, numel))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        # torch stores attributes of an OrderedDict ("_metadata") this way; they carry no tensors of their own.
        if not isinstance(target, dict | Inert) or isinstance(state, _Mark):
            raise self.refuse("it sets the inside of something that is not a plain container")

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict) or len(pairs) % 2:
            raise self.refuse("it fills something that is not a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int | float | None):
                raise self.refuse("a dictionary has a key that is not plain")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, list):
            raise self.refuse("it appends to something that is not a list")
        target.extend(items)

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def stack_global(self) -> None:
        attribute, module = self.pop(), self.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise self.refuse("it computes a name")
        self.named(f"{module} {attribute}")

    def reduce(self) -> None:
        arguments, target = self.pop(), self.pop()
        self.push(self.call(target, arguments))

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)][::-1]
        self.push(tuple(items))

    def pair(self) -> list[Any]:
        value, key = self.pop(), self.pop()
        return [key, value]


_DTYPE_NAMES = {str(dtype).removeprefix("torch.") for dtype in _STORAGES.values()} | {
    "double",
    "float",
    "half",
    "long",
}

_HANDLERS: dict[str, Any] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: m.push(_Mark()),
    "POP": lambda m, a: m.stack.pop(),
    "POP_MARK": lambda m, a: m.pop_to_mark(),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    **dict.fromkeys(
        (
            "BININT",
            "BININT1",
            "BININT2",
            "LONG1",
            "BINFLOAT",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINBYTES",
            "SHORT_BINBYTES",
            "BINSTRING",
            "SHORT_BINSTRING",
        ),
        lambda m, a: m.push(a),
    ),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_SET": lambda m, a: m.push([]),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, a: m.tuple_of(1),
    "TUPLE2": lambda m, a: m.tuple_of(2),
    "TUPLE3": lambda m, a: m.tuple_of(3),
    "APPEND": lambda m, a: m.append([m.pop()]),
    "APPENDS": lambda m, a: m.append(m.pop_to_mark()),
    "ADDITEMS": lambda m, a: m.append(m.pop_to_mark()),
    "SETITEM": lambda m, a: m.set_items(m.pair()),
    "SETITEMS": lambda m, a: m.set_items(m.pop_to_mark()),
    "BINPUT": lambda m, a: m.remember(a),
    "LONG_BINPUT": lambda m, a: m.remember(a),
    "MEMOIZE": lambda m, a: m.remember(len(m.memo)),
    "BINGET": lambda m, a: m.push(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.push(m.memo[a]),
    "GLOBAL": lambda m, a: m.named(a),
    "STACK_GLOBAL": lambda m, a: m.stack_global(),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.reduce(),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.persistent(),
}
"""Instruction -> what it does to the machine. What is not here is refused."""


def read_torch_file(path: Path) -> Any:
    """The tree of tensors, numbers, text and containers in a file written by ``torch.save``.

    Tensors are memory mapped: their data is read when it is used. Objects of training programs become
    :class:`Inert`.

    Raises:
        CheckpointError: damaged, of another format, or with contents that are not allowed; the message says what.
    """
    file = TensorFile.open(path)
    return _Interpreter(file).run(file.read(file.root + "data.pkl"))
