"""Weight files: safe reading, converted folders, the local store, downloads, and what a foreign file looks like.

Published checkpoints are pickles, which can run any code when loaded the usual way. This module never unpickles.
:func:`read_torch_file` interprets the pickle's instructions itself, knows only what tensors, numbers, text and plain
containers need, and refuses everything else by name. Nothing named in a file is ever imported or called.
"""

import hashlib
import json
import logging
import mmap
import os
import pickletools
import re
import struct
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geo4d.errors import CheckpointError, OutputError

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    numel: int


class _Mark:
    pass


@dataclass
class _TensorFile:
    """The zip container that ``torch.save`` writes, memory mapped."""

    path: Path
    buffer: mmap.mmap
    records: dict[str, tuple[int, int]]
    root: str

    @classmethod
    def open(cls, path: Path) -> "_TensorFile":
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            with path.open("rb") as file:
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise CheckpointError(f"{path}: not a readable PyTorch file ({error})") from error
        records: dict[str, tuple[int, int]] = {}
        for entry in entries:
            if entry.filename in records:
                raise CheckpointError(f"{path}: two members are called {entry.filename!r}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise CheckpointError(
                    f"{path}: member {entry.filename!r} is compressed or encrypted; PyTorch writes neither"
                )
            if entry.file_size != entry.compress_size:
                raise CheckpointError(f"{path}: member {entry.filename!r} states two different sizes")
            records[entry.filename] = (cls._data_offset(path, buffer, entry), entry.file_size)
        roots = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
        if len(roots) != 1 or roots[0].count("/") != 1:
            raise CheckpointError(
                f"{path}: expected one 'data.pkl' as torch.save writes it, got {len(roots)}"
            )
        root = roots[0]
        if root + "byteorder" in records:
            offset, size = records[root + "byteorder"]
            if bytes(buffer[offset : offset + size]) != b"little":
                raise CheckpointError(
                    f"{path}: written on a big-endian machine; re-save it on a little-endian one"
                )
        return cls(path, buffer, records, root)

    @staticmethod
    def _data_offset(path: Path, buffer: mmap.mmap, entry: zipfile.ZipInfo) -> int:
        header = bytes(buffer[entry.header_offset : entry.header_offset + 30])
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise CheckpointError(
                f"{path}: member {entry.filename!r} has no header where the directory points"
            )
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        offset = entry.header_offset + 30 + name_length + extra_length
        if offset + entry.file_size > len(buffer):
            raise CheckpointError(f"{path}: member {entry.filename!r} is cut off; the file is incomplete")
        return offset

    def read(self, name: str) -> bytes:
        offset, size = self.records[name]
        return bytes(self.buffer[offset : offset + size])

    def storage(self, storage: _Storage) -> Tensor:
        """The flat tensor of a storage; its pages are read when they are touched."""
        name = f"{self.root}data/{storage.key}"
        if name not in self.records:
            raise CheckpointError(f"{self.path}: tensor data {name!r} is missing")
        offset, size = self.records[name]
        if storage.numel * storage.dtype.itemsize > size:
            raise CheckpointError(
                f"{self.path}: {name!r} should hold {storage.numel} values of {storage.dtype}, has {size} bytes"
            )
        if storage.numel == 0:
            return torch.empty(0, dtype=storage.dtype)
        return torch.frombuffer(self.buffer, dtype=storage.dtype, count=storage.numel, offset=offset)


class _Interpreter:
    """A stack machine for the few pickle instructions that checkpoints consist of."""

    def __init__(self, file: _TensorFile) -> None:
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
        if not isinstance(storage, _Storage) or type(offset) is not int:
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
        self.push(_Storage(_STORAGES[kind.name.removeprefix("torch ")], key, numel))

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
    file = _TensorFile.open(path)
    return _Interpreter(file).run(file.read(file.root + "data.pkl"))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, memory mapped.

    Raises:
        CheckpointError: damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def read_state(
    path: str | Path, containers: Iterable[str] = ("state_dict", "module", "model")
) -> dict[str, Tensor]:
    """The named tensors of a weight file, whatever wraps them.

    Args:
        path: safetensors, or a PyTorch zip file.
        containers: names under which training programs put the state; the first one present is taken, else the tree
            itself.
    Raises:
        CheckpointError: missing, damaged, unsafe, or without tensors; it says what the file looks like.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"expected a weight file, {path} is {'a folder' if path.is_dir() else 'not there'}"
        )
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        tree = read_torch_file(path)
    elif len(head) > 9 and head[8:9] == b"{":
        return read_safetensors(path)
    else:
        raise CheckpointError(f"{path}: not a weight file: {describe_head(head)}")
    for name in containers:
        if isinstance(tree, dict) and isinstance(tree.get(name), dict):
            tree = tree[name]
            break
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: expected tensors by name, got {type(tree).__name__}")
    state = {
        name: value for name, value in tree.items() if isinstance(value, Tensor) and isinstance(name, str)
    }
    if not state:
        raise CheckpointError(f"{path}: no tensors by name inside; top level: {[str(k) for k in tree][:8]}")
    return state


def describe_head(head: bytes) -> str:
    """What a file that is no weight file seems to be, from its first bytes."""
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the real file with 'git lfs pull'"
    if head.lstrip()[:1] == b"<":
        return "it is a web page; the download needs a login or a confirmation"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "it is a bare pickle or a PyTorch file older than 1.6; re-save it with a newer PyTorch"
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        return "it is a compressed or tar archive; unpack it first"
    return f"it starts with {head[:8]!r}"


_LOOKS: list[tuple[str, str]] = [
    (r"^(_forward_module\.)?model\.diffusion_model\.fps_embedding\.", "a Geo4D main checkpoint"),
    (
        r"^(_forward_module\.)?model\.diffusion_model\.framestride_embed\.",
        "a DynamiCrafter-type main checkpoint",
    ),
    (r"^model\.diffusion_model\.input_blocks\.", "a latent-diffusion checkpoint of another network"),
    (r"^model\.(encoder|decoder)_adaptor\.", "a Geo4D point-map codec file"),
    (r"^(model\.|first_stage_model\.)?encoder\.down\.\d+\.block\.", "a latent-diffusion codec"),
    (
        r"^down_blocks\.\d+\.(resnets|attentions)\.\d+\.(spatial|temporal)",
        "a diffusers video UNet",
    ),
    (r"^(encoder\.)?down_blocks\.", "a diffusers network"),
    (r"^backbone\.blocks\.\d+\.|^backbone\.pretrained\.", "a MoGe checkpoint"),
    (r"^visual\.|^transformer\.resblocks\.", "an OpenCLIP model"),
    (r"^vision_model\.", "a transformers CLIP model"),
    (r"^(unet|vae|point_vae|context)\.", "a file of a converted geo4d folder"),
]


def describe_keys(keys: Iterable[str]) -> str:
    """What kind of checkpoint a list of tensor names belongs to."""
    names = list(keys)
    for pattern, description in _LOOKS:
        if any(re.match(pattern, name) for name in names):
            return description
    return f"nothing known (first names: {', '.join(names[:3])})" if names else "an empty checkpoint"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
NOTICE = "NOTICE.md"


@dataclass(frozen=True)
class ModelFolder:
    """A converted network: sharded safetensors, config, licence note, and a hash of every shard.

    Attributes:
        path: the folder.
        config: contents of ``config.json``; ``family`` and ``network`` are always there.
        weight_map: tensor name -> shard.
        shard_sha256: shard -> hash, as recorded when it was written.
        sha256: hash over all shard names and hashes: the identity of the weights.
        config_sha256: of ``config.json``, as recorded when it was written; None in folders of older versions.
    """

    path: Path
    config: Mapping[str, Any]
    weight_map: Mapping[str, str]
    shard_sha256: Mapping[str, str]
    sha256: str
    config_sha256: str | None = None

    @classmethod
    def open(cls, path: Path, family: str) -> "ModelFolder":
        """Read the index and compare every shard, and the config, with its recorded hash.

        The hashes of the bytes are computed once per file (``identity.file_sha256``), so ``sha256`` is what is loaded.

        Raises:
            CheckpointError: missing, incomplete, changed, of another family, or with a shard outside the folder.
        """
        folder = cls._read(path, family)
        from geo4d.models.identity import compare

        recorded_config = folder.config_sha256
        if recorded_config is not None:
            compare(path / CONFIG, recorded_config, None, "the one recorded when it was converted")
        for shard, recorded in folder.shard_sha256.items():
            compare(path / shard, recorded, None, "the one recorded when it was converted")
        return folder

    @classmethod
    def _read(cls, path: Path, family: str) -> "ModelFolder":
        """The index of a folder, whose shards must be there."""
        if not path.is_dir():
            raise CheckpointError(
                f"expected a converted model folder, {path} is {'a file' if path.is_file() else 'not there'}; "
                f"see 'geo4d models list' and 'geo4d models pull {family}'"
            )
        try:
            index = json.loads((path / INDEX).read_text(encoding="utf-8"))
            config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
            weight_map, metadata = dict(index["weight_map"]), index["metadata"]
            hashes = {str(shard): str(digest) for shard, digest in metadata["shard_sha256"].items()}
            config_sha256 = metadata.get("config_sha256")
            stated = config.get("family")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: incomplete or damaged model folder ({error}); convert it again"
            ) from error
        if stated != family:
            raise CheckpointError(f"{path}: expected a {family} model, got {stated!r}")
        for shard in sorted({*map(str, weight_map.values()), *hashes}):
            if not re.fullmatch(r"[\w.-]+\.safetensors", str(shard)) or shard not in hashes:
                raise CheckpointError(
                    f"{path}: the index names the shard {shard!r}, which is not a file of this folder"
                )
            if not (path / shard).is_file():
                raise CheckpointError(f"{path}: shard {shard} is missing; convert or pull the model again")
        return cls(path, config, weight_map, hashes, _folder_hash(hashes), config_sha256)

    def part(self, name: str) -> dict[str, Tensor]:
        """Tensors whose names start with ``<name>.``, without it; memory mapped.

        Raises:
            CheckpointError: a shard is damaged or does not hold what the index says.
        """
        wanted: dict[str, list[str]] = {}
        for tensor, shard in self.weight_map.items():
            if tensor.startswith(name + "."):
                wanted.setdefault(shard, []).append(tensor)
        found: dict[str, Tensor] = {}
        for shard, tensors in wanted.items():
            try:
                with safe_open(self.path / shard, framework="pt") as file:
                    for tensor in tensors:
                        found[tensor[len(name) + 1 :]] = file.get_tensor(tensor)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{self.path / shard}: damaged ({error}); convert or pull it again"
                ) from error
        return found

    def verify(self) -> None:
        """Read every byte again and compare every shard with its recorded hash.

        Raises:
            CheckpointError: one differs.
        """
        for shard, recorded in self.shard_sha256.items():
            found = sha256_of(self.path / shard)
            if found != recorded:
                raise CheckpointError(
                    f"{self.path / shard}: SHA-256 is {found}, recorded was {recorded}; get it again"
                )


def _folder_hash(hashes: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {value}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class _Shard:
    name: str
    tensors: list[str] = field(default_factory=list)


def write_model_folder(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    notice: str,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = 2 * 2**30,
    overwrite: bool = False,
) -> ModelFolder:
    """Write a network as sharded safetensors. Complete or absent, and resumable.

    Shards are written into ``<path>.partial`` and the folder is renamed at the end. A stopped run continues: shards
    that are there with their recorded hash, for the same source and settings, are kept.

    Args:
        tensors: by name; floating ones are cast to ``dtype`` if given. Read one shard at a time.
        config: JSON values with ``family``, ``network`` and ``source``; part of what a resumed run must agree on.
        notice: licence and origin, Markdown.
        shard_bytes: upper size of a shard; a larger tensor gets one of its own.
    Raises:
        OutputError: ``path`` exists and ``overwrite`` is off, or it cannot be written.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give another output or --overwrite")
    partial = path.with_name(path.name + ".partial")
    config = {**config, "dtype": None if dtype is None else str(dtype).removeprefix("torch.")}
    shards = _plan_shards(tensors, dtype, shard_bytes)
    identity = {"config": json.loads(json.dumps(config)), "shards": [[s.name, s.tensors] for s in shards]}
    try:
        partial.mkdir(parents=True, exist_ok=True)
        hashes = _finished_shards(partial, identity)
        for shard in shards:
            if shard.name in hashes:
                logger.info("%s is there already", shard.name)
                continue
            save_file(
                {name: _cast(tensors[name], dtype) for name in shard.tensors}, partial / (shard.name + ".tmp")
            )
            os.replace(partial / (shard.name + ".tmp"), partial / shard.name)
            hashes[shard.name] = sha256_of(partial / shard.name)
            write_json(partial / "progress.json", {"identity": identity, "shard_sha256": hashes})
        weight_map = {name: shard.name for shard in shards for name in shard.tensors}
        size = sum((partial / shard.name).stat().st_size for shard in shards)
        write_json(partial / CONFIG, config)
        metadata = {
            "total_size": size,
            "shard_sha256": hashes,
            "sha256": _folder_hash(hashes),
            "config_sha256": sha256_of(partial / CONFIG),
        }
        (partial / NOTICE).write_text(notice, encoding="utf-8")
        write_json(partial / INDEX, {"metadata": metadata, "weight_map": weight_map})
        (partial / "progress.json").unlink()
        if path.exists():
            old = path.with_name(path.name + ".old")
            os.replace(path, old)
            os.replace(partial, path)
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        else:
            os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"cannot write {partial}: {error}; run the same command again to go on") from error
    return ModelFolder._read(path, config["family"])  # its hashes were computed a moment ago


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return (
        (tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor)
        .contiguous()
        .clone()
    )


def _plan_shards(tensors: Mapping[str, Tensor], dtype: torch.dtype | None, shard_bytes: int) -> list[_Shard]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        itemsize = (
            dtype.itemsize if dtype is not None and tensor.is_floating_point() else tensor.element_size()
        )
        size = tensor.numel() * itemsize
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    count = len(groups)
    return [_Shard(f"model-{i + 1:05d}-of-{count:05d}.safetensors", names) for i, names in enumerate(groups)]


def _finished_shards(partial: Path, identity: Mapping[str, Any]) -> dict[str, str]:
    progress = partial / "progress.json"
    if not progress.is_file():
        return {}
    try:
        recorded = json.loads(progress.read_text(encoding="utf-8"))
        same, hashes = recorded["identity"] == identity, dict(recorded["shard_sha256"])
    except (ValueError, KeyError, TypeError):
        return {}
    if not same:
        return {}
    return {n: h for n, h in hashes.items() if (partial / n).is_file() and sha256_of(partial / n) == h}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def model_store() -> Path:
    """Where pulled models live: ``GEO4D_MODELS``, or ``models`` in the user's cache folder for geo4d."""
    if "GEO4D_MODELS" in os.environ:
        return Path(os.environ["GEO4D_MODELS"])
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "geo4d" / "models"


def fetch_file(source: str, target: Path, *, sha256: str | None = None, offline: bool = False) -> Path:
    """Bring one weight file to ``target`` from a path or an https address.

    A broken download goes on where it stopped. The file appears under its name only when it is complete and its hash
    (when one is given) is right.

    Args:
        source: local path, or ``https://...``.
        sha256: expected hash.
        offline: refuse anything but a local path, before the network is touched.
    Returns:
        the local path itself, or ``target``.
    Raises:
        CheckpointError: not there, wrong hash, no network, or offline.
    """
    scheme = urllib.parse.urlparse(source).scheme
    if scheme not in ("http", "https") or Path(source).exists():
        path = Path(source)
        if not path.is_file():
            raise CheckpointError(
                f"expected a weight file or an https address, got {source!r}, which is not there"
            )
        _check_hash(path, sha256)
        return path
    if target.is_file():
        try:
            _check_hash(target, sha256)
            return target
        except CheckpointError as error:
            aside = target.with_name(target.name + ".rejected")
            os.replace(target, aside)
            logger.warning("%s; it is now called %s", error, aside.name)
    if offline:
        raise CheckpointError(f"{source} is not in the local store and --offline is set")
    if scheme != "https":
        raise CheckpointError(f"expected an https address, got {source!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _download(source, part)
    try:
        _check_hash(part, sha256)
    except CheckpointError:
        part.unlink()  # complete and wrong: there is nothing to go on with
        raise
    os.replace(part, target)
    return target


def _download(url: str, part: Path, timeout_s: float = 60.0) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            resumed = done > 0 and reply.status == 206
            expected = reply.headers.get("Content-Length")
            with part.open("ab" if resumed else "wb") as file:
                received = 0
                while block := reply.read(2**20):
                    file.write(block)
                    received += len(block)
        if expected is not None and received != int(expected):
            raise CheckpointError(
                f"{url}: got {received} of {expected} bytes; run the same command again to go on"
            )
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:
            return
        raise CheckpointError(f"cannot download {url}: {error}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot download {url}: {error}; run the same command again to go on"
        ) from error


def _check_hash(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256.lower():
        raise CheckpointError(f"{path}: SHA-256 is {found}, expected {sha256}; delete it and get it again")


def iter_tensors(parts: Mapping[str, Mapping[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """All tensors of all parts as ``part.name``, in order."""
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            yield f"{part}.{name}", tensor
