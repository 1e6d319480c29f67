"""Hostile, broken and honest weight files."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geo4d.errors import CheckpointError, OutputError
from geo4d.models.checkpoints import (
    INDEX,
    Inert,
    ModelFolder,
    describe_keys,
    fetch_file,
    read_safetensors,
    read_state,
    read_torch_file,
    sha256_of,
    write_model_folder,
)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Calls:
    """Pickles as a call of any function: what an attacker writes."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def container(
    path: Path, pickled: bytes, records: dict[str, bytes] | None = None, compress: bool = False
) -> Path:
    """A torch.save container around any pickle."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in (records or {}).items():
            archive.writestr(name, data)
    return path


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>confirm download</html>", "web page"),
        (b"\x80\x02}q\x00.", "bare pickle"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 600, "archive"),
        (b"hello, this is text", "not a weight file"),
        (b"PK\x03\x04" + b"\0" * 100, "not a readable PyTorch file"),
        (struct.pack("<Q", 2**62) + b"{}", "not a readable safetensors"),
        (struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"', "not a readable safetensors"),
    ],
)
def test_what_is_no_weight_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_state(path)


def test_broken_containers(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    torch.save(STATE, good)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(good.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a readable PyTorch file"):
        read_state(cut)
    with pytest.raises(CheckpointError, match="compressed"):
        read_state(container(tmp_path / "bomb.pt", b"\0" * 10**6, compress=True))
    with zipfile.ZipFile(tmp_path / "none.pt", "w") as archive:
        archive.writestr("../../evil/data.pkl", b".")
    with pytest.raises(CheckpointError, match=r"data.pkl"):
        read_state(tmp_path / "none.pt")
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/byteorder", b"big")
    with pytest.raises(CheckpointError, match="big-endian"):
        read_state(tmp_path / "big.pt")
    with pytest.raises(CheckpointError, match="not there"):
        read_state(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="no tensors by name"):
        read_state(container(tmp_path / "no_tensors.pt", b"\x80\x02}."))


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


def test_reading_does_not_change_the_file(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "model.pt")
    before = sha256_of(tmp_path / "model.pt")
    state = read_state(tmp_path / "model.pt")
    state["a.bias"].add_(1)
    assert sha256_of(tmp_path / "model.pt") == before


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert read_safetensors(tmp_path / "model.safetensors").keys() == STATE.keys()
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(data[:-4])
    with pytest.raises(CheckpointError, match="safetensors"):
        read_safetensors(tmp_path / "cut.safetensors")


CONFIG = {"family": "toy", "network": {}, "source": "x"}


def test_folder_round_trip_and_hashes(tmp_path: Path) -> None:
    tensors = {f"net.{i}": torch.full((100,), float(i)) for i in range(5)} | {"other.n": torch.arange(3)}
    written = write_model_folder(tmp_path / "m", tensors, CONFIG, "licence", shard_bytes=900)
    assert len(written.shard_sha256) == 3
    folder = ModelFolder.open(tmp_path / "m", "toy")
    folder.verify()
    assert folder.sha256 == written.sha256
    assert all(torch.equal(v, tensors[f"net.{k}"]) for k, v in folder.part("net").items())
    assert folder.part("other")["n"].dtype == torch.int64
    assert (tmp_path / "m" / "NOTICE.md").read_text() == "licence"
    assert not (tmp_path / "m.partial").exists()
    with pytest.raises(OutputError, match="exists"):
        write_model_folder(tmp_path / "m", tensors, CONFIG, "licence")
    half = write_model_folder(tmp_path / "m", tensors, CONFIG, "n", dtype=torch.float16, overwrite=True)
    assert half.part("net")["1"].dtype == torch.float16
    assert half.part("other")["n"].dtype == torch.int64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_stopped_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {f"net.{i}": torch.full((100,), float(i)) for i in range(4)}
    saved: list[str] = []

    def failing(values: dict, path: Path, fail_at: int) -> None:
        saved.append(Path(path).name)
        if len(saved) == fail_at:
            raise OSError("no space left")
        save_file(values, path)

    monkeypatch.setattr("geo4d.models.checkpoints.save_file", lambda v, p: failing(v, p, 3))
    with pytest.raises(OutputError, match=r"no space left.*go on"):
        write_model_folder(tmp_path / "m", tensors, CONFIG, "", shard_bytes=400)
    assert not (tmp_path / "m").exists()
    monkeypatch.setattr("geo4d.models.checkpoints.save_file", lambda v, p: failing(v, p, -1))
    shard = tmp_path / "m.partial" / "model-00001-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")  # damaged meanwhile: is written again
    saved.clear()
    resumed = write_model_folder(tmp_path / "m", tensors, CONFIG, "", shard_bytes=400)
    assert [name[:11] for name in saved] == ["model-00001", "model-00003", "model-00004"]
    resumed.verify()
    other = write_model_folder(tmp_path / "n", tensors, CONFIG, "", shard_bytes=400)
    assert other.sha256 == resumed.sha256


def test_bad_folders(tmp_path: Path) -> None:
    def make(name: str) -> Path:
        write_model_folder(tmp_path / name, {"net.a": torch.ones(4)}, CONFIG, "")
        return tmp_path / name

    def edit_index(path: Path, change: Callable[[dict], None]) -> None:
        index = json.loads((path / INDEX).read_text())
        change(index)
        (path / INDEX).write_text(json.dumps(index))

    with pytest.raises(CheckpointError, match=r"not there.*models pull toy"):
        ModelFolder.open(tmp_path / "none", "toy")
    with pytest.raises(CheckpointError, match="expected a geo4d model, got 'toy'"):
        ModelFolder.open(make("family"), "geo4d")
    path = make("outside")
    edit_index(path, lambda index: index["weight_map"].update({"net.a": "../other.safetensors"}))
    with pytest.raises(CheckpointError, match="not a file of this folder"):
        ModelFolder.open(path, "toy")
    path = make("missing_shard")
    next(path.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        ModelFolder.open(path, "toy")
    path = make("no_index")
    (path / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        ModelFolder.open(path, "toy")
    path = make("flipped")
    shard = next(path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="SHA-256"):
        ModelFolder.open(path, "toy")
    path = make("cut")
    opened = ModelFolder.open(path, "toy")
    shard = next(path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="SHA-256"):
        ModelFolder.open(path, "toy")
    with pytest.raises(CheckpointError, match="damaged"):
        opened.part("net")
    with pytest.raises(CheckpointError, match="SHA-256"):
        opened.verify()
    path = make("config")
    (path / "config.json").write_text(json.dumps({**CONFIG, "network": {"width": 3}}))
    with pytest.raises(CheckpointError, match=r"config\.json: SHA-256"):
        ModelFolder.open(path, "toy")
    for text in ("[]", "7", "[" * 100_000):
        (path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="incomplete or damaged"):
            ModelFolder.open(path, "toy")


def test_a_changed_record_changes_the_identity(tmp_path: Path) -> None:
    """Who changes a shard and its record gets weights of another identity, never the true one."""
    written = write_model_folder(tmp_path / "m", {"net.a": torch.ones(1000)}, CONFIG, "")
    shard = next((tmp_path / "m").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-2] + b"\x10\x10")
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    index["metadata"]["shard_sha256"] = {shard.name: sha256_of(shard)}
    (tmp_path / "m" / INDEX).write_text(json.dumps(index))
    assert ModelFolder.open(tmp_path / "m", "toy").sha256 != written.sha256


class Reply(io.BytesIO):
    def __init__(self, data: bytes, status: int, length: int | None = None) -> None:
        super().__init__(data)
        self.status = status
        self.headers = {"Content-Length": str(len(data) if length is None else length)}


def test_download_resumes_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 10
    asked: list[str | None] = []

    def serve(request, timeout: float) -> Reply:
        asked.append(request.get_header("Range"))
        start = int(asked[-1][6:-1]) if asked[-1] else 0
        if start == 0:
            return Reply(content[:1000], 200, len(content))
        return Reply(content[start:], 206)

    monkeypatch.setattr("urllib.request.urlopen", serve)
    target = tmp_path / "store" / "file.ckpt"
    digest = __import__("hashlib").sha256(content).hexdigest()
    with pytest.raises(CheckpointError, match="got 1000 of 2560 bytes"):
        fetch_file("https://example.org/f", target, sha256=digest)
    assert not target.exists()
    assert fetch_file("https://example.org/f", target, sha256=digest) == target
    assert asked == [None, "bytes=1000-"]
    assert target.read_bytes() == content
    assert fetch_file("https://example.org/f", target, sha256=digest, offline=True) == target
    target.write_bytes(content[:-1] + b"x")
    with pytest.raises(CheckpointError, match="got 1000"):  # the wrong file is not under its name any more
        fetch_file("https://example.org/f", target, sha256=digest)
    assert not target.exists()
    assert target.with_name("file.ckpt.rejected").read_bytes() == content[:-1] + b"x"
    with pytest.raises(CheckpointError, match="SHA-256"):
        fetch_file("https://example.org/f", target, sha256="0" * 64)
    assert sorted(path.name for path in target.parent.iterdir()) == ["file.ckpt.rejected"]


def test_offline_never_touches_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("network used")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(CheckpointError, match="--offline"):
        fetch_file("https://example.org/f", tmp_path / "f", offline=True)
    with pytest.raises(CheckpointError, match="https"):
        fetch_file("http://example.org/f", tmp_path / "f")
    with pytest.raises(CheckpointError, match="not there"):
        fetch_file("file:///etc/hostname", tmp_path / "f")
    local = tmp_path / "local"
    local.write_bytes(b"x")
    assert fetch_file(str(local), tmp_path / "f", offline=True) == local


def test_look_alikes() -> None:
    assert "point-map codec" in describe_keys(["model.decoder_adaptor.conv_out.weight"])
    assert "diffusers" in describe_keys(["down_blocks.0.resnets.0.conv1.weight"])
    assert "nothing known" in describe_keys(["x"])
    assert "empty" in describe_keys([])
