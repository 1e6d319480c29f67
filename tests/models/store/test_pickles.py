"""Hostile, broken and honest checkpoints: nothing in them runs, and what is sound is read."""

import os
import pickle
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.store.pickles import Inert, read_torch_file
from geo4d.models.store.reading import read_state
from tests.support.checkpoints import STATE, Calls, container


def gadget_imports(marker: Path) -> dict[str, Callable[[], bytes]]:
    """Payloads that would leave ``marker`` behind (or worse) if anything in them ran."""
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"

    def by_name(module: str, name: str, argument: str) -> bytes:
        text = argument.encode()
        return (
            b"\x80\x02c"
            + f"{module}\n{name}\n".encode()
            + b"X"
            + struct.pack("<I", len(text))
            + text
            + b"\x85R."
        )

    named = {
        "posix.system": ("posix", "system", command),
        "os.system": ("os", "system", command),
        "os.popen": ("os", "popen", command),
        "subprocess.getoutput": ("subprocess", "getoutput", command),
        "subprocess.Popen": ("subprocess", "Popen", command),
        "builtins.eval": ("builtins", "eval", code),
        "builtins.exec": ("builtins", "exec", code),
        "builtins.__import__": ("builtins", "__import__", "antigravity"),
        "builtins.open": ("builtins", "open", str(marker)),
        "runpy.run_path": ("runpy", "run_path", str(marker)),
        "importlib.import_module": ("importlib", "import_module", "antigravity"),
        "shutil.rmtree": ("shutil", "rmtree", str(marker)),
        "pty.spawn": ("pty", "spawn", command),
        "webbrowser.open": ("webbrowser", "open", "file:///"),
        "ctypes.CDLL": ("ctypes", "CDLL", str(marker)),
        "code.InteractiveInterpreter": ("code", "InteractiveInterpreter", code),
        "timeit.timeit": ("timeit", "timeit", code),
        "cProfile.run": ("cProfile", "run", code),
        "pickle.loads": ("_pickle", "loads", code),
        "torch.load": ("torch.serialization", "load", str(marker)),
        "torch.hub.load": ("torch.hub", "load", str(marker)),
        "torch.storage._load_from_bytes": ("torch.storage", "_load_from_bytes", code),
        "torch.jit.load": ("torch.jit", "load", str(marker)),
        "operator.attrgetter": ("operator", "attrgetter", "system"),
        "builtins.getattr": ("builtins", "getattr", "system"),
        "functools.partial": ("functools", "partial", code),
        "lookalike of an allowed package": ("omegaconfx", "DictConfig", code),
        "submodule in an attribute": ("torch", "_utils._rebuild_tensor_v2.__globals__", code),
    }
    payloads: dict[str, Callable[[], bytes]] = {
        name: (lambda parts=parts: by_name(*parts)) for name, parts in named.items()
    }
    payloads["pickled object"] = lambda: pickle.dumps(
        {"state_dict": STATE | {"x": Calls(os.system, command)}}
    )
    payloads["computed name"] = lambda: (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(command)]) + command.encode() + b"\x85R."
    )
    payloads["INST"] = lambda: (
        b"(X" + struct.pack("<I", len(command)) + command.encode() + b"iposix\nsystem\n."
    )
    payloads["OBJ"] = lambda: (
        b"(cposix\nsystem\nX" + struct.pack("<I", len(command)) + command.encode() + b"o."
    )
    payloads["extension code"] = lambda: b"\x80\x02\x82\x01)R."
    return payloads


def broken_pickles() -> dict[str, bytes]:
    def storage(numel: int, key: str = "0") -> bytes:
        return (
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX"
            + struct.pack("<I", len(key))
            + key.encode()
            + b"X\x03\x00\x00\x00cpu"
            + b"\x8a\x08"
            + struct.pack("<q", numel)
            + b"tQ"
        )

    def tensor(offset: int, size: int, stride: int, numel: int = 4, key: str = "0") -> bytes:
        numbers = b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in (size, stride))
        size_bytes, stride_bytes = numbers[:10], numbers[10:]
        return (
            b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
            + storage(numel, key)
            + b"\x8a\x08"
            + struct.pack("<q", offset)
            + size_bytes
            + b"\x85"
            + stride_bytes
            + b"\x85"
            + b"\x89}tRs."
        )

    return {
        "empty": b"",
        "sound": tensor(0, 4, 1),
        "no end": b"\x80\x02}",
        "cut off text": b"\x80\x02X\xff\x00\x00\x00abc",
        "huge text": b"\x80\x02X\xff\xff\xff\xffabc.",
        "huge bytes": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        "huge number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "unset memo": b"\x80\x02h\x07.",
        "stack underflow": b"\x80\x02\x86.",
        "marker as value": b"\x80\x02(\x85.",
        "two results": b"\x80\x02NN.",
        "key that is a tuple": b"\x80\x02})Ns.",
        "fills a number": b"\x80\x02K\x01K\x02K\x03s.",
        "beyond the data": tensor(0, 5, 1),
        "offset beyond the data": tensor(4, 1, 1),
        "negative offset": tensor(-1, 1, 1),
        "negative size": tensor(0, -1, 1),
        "negative stride": tensor(3, 2, -1),
        "more values than data by stride 0": tensor(0, 2**40, 0),
        "storage larger than its record": tensor(0, 1, 1, numel=2**40),
        "storage not there": tensor(0, 1, 1, key="7"),
        "storage outside the archive": tensor(0, 1, 1, key="../x"),
        "attributes on a name": b"\x80\x02ccollections\nOrderedDict\n}b.",
        "persistent text id": b"Pabc\n.",
    }


@pytest.mark.parametrize("name", list(gadget_imports(Path("x"))))
def test_hostile_files_are_refused_and_run_nothing(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    loaded = set(sys.modules)
    path = container(tmp_path / "model.ckpt", gadget_imports(marker)[name]())
    with pytest.raises(CheckpointError, match="refused") as caught:
        read_state(path)
    assert "list of what a checkpoint needs" in str(caught.value) or "instruction" in str(caught.value)
    assert not marker.exists()
    assert not {"antigravity", "pty", "webbrowser"} & (set(sys.modules) - loaded)


def test_the_sound_neighbour_of_the_damaged_ones_is_read(tmp_path: Path) -> None:
    path = container(
        tmp_path / "m.ckpt", broken_pickles()["sound"], {"archive/data/0": struct.pack("<4f", 1, 2, 3, 4)}
    )
    assert read_torch_file(path)["w"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", sorted(broken_pickles().keys() - {"sound"}))
def test_damaged_descriptions_are_refused(name: str, tmp_path: Path) -> None:
    path = container(tmp_path / "model.ckpt", broken_pickles()[name], {"archive/data/0": b"\0" * 16})
    with pytest.raises(CheckpointError):
        read_torch_file(path)


def test_a_pickle_that_names_settings_only_becomes_inert(tmp_path: Path) -> None:
    pickled = b"\x80\x02comegaconf.dictconfig\nDictConfig\n)\x81}X\x01\x00\x00\x00aK\x01sb."
    assert read_torch_file(container(tmp_path / "a.ckpt", pickled)) == Inert(
        "omegaconf.dictconfig.DictConfig"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_reads_what_torch_writes(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.arange(24).reshape(2, 3, 4).to(dtype)
    tree = {
        "state_dict": OrderedDict(
            whole=values,
            part=values[:, 1:, ::2],
            turned=values.permute(2, 0, 1),
            scalar=values[0, 0, 1],
            parameter=torch.nn.Parameter(torch.ones(3)),
            none=torch.empty(0, 4),
        ),
        "epoch": 3,
        "loss": 0.5,
        "hyper": {"nested": [1, (2, "x"), None, True]},
    }
    torch.save(tree, tmp_path / "model.pt")
    read = read_torch_file(tmp_path / "model.pt")
    assert read["epoch"] == 3
    assert read["hyper"] == {"nested": [1, (2, "x"), None, True]}
    expected = torch.load(tmp_path / "model.pt", weights_only=True)["state_dict"]
    state = read_state(tmp_path / "model.pt")
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name].detach()), name
        assert tensor.dtype == expected[name].dtype
