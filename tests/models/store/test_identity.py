"""Hashes of weight files: computed once, and always of the bytes that are there."""

import json
import os
from pathlib import Path

import pytest

from geo4d.errors import CheckpointError
from geo4d.formats.hashes import sha256_of
from geo4d.models.base import load_predictor
from geo4d.models.store import identity
from geo4d.models.store.identity import check_weights, file_sha256
from geo4d.models.store.sources import SOURCES
from geo4d.models.tiny import weights as tiny


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose hashes were computed and not remembered; the clock is an hour ahead of their last changes."""
    found: list[Path] = []

    def counted(path: Path) -> str:
        found.append(path)
        return sha256_of(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "sha256_of", counted)
    now = identity.time.time
    monkeypatch.setattr(identity.time, "time", lambda: now() + 3600)
    return found


def test_a_hash_is_computed_once_as_long_as_the_file_stays_the_same(
    tmp_path: Path, computed: list[Path]
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    first = file_sha256(path)
    assert first == file_sha256(path) == sha256_of(path)
    assert len(computed) == 1
    kept = path.stat()
    path.write_bytes(b"harmful")  # in place, of the same size, and the time of the change is put back
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert path.stat().st_mtime_ns == kept.st_mtime_ns
    assert file_sha256(path) == sha256_of(path) != first
    other = tmp_path / "other"
    other.write_bytes(b"weights")
    os.utime(other, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    os.replace(other, path)
    assert file_sha256(path) == first
    assert len(computed) == 3


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    for content in (b"weights", b"harmful") * 5:  # within one tick of the clock of the file system
        path.write_bytes(content)
        assert file_sha256(path) == sha256_of(path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"PATH": 7}', '{"PATH": []}', '{"PATH": [1, 2]}']
)
def test_a_damaged_memory_is_computed_again(tmp_path: Path, computed: list[Path], text: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    memory = tmp_path / "cache" / "geo4d" / "sha256.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(text.replace("PATH", str(path)))
    assert file_sha256(path) == file_sha256(path) == sha256_of(path)
    assert len(computed) == 1
    assert str(path) in json.loads(memory.read_text())


def test_no_memory_is_no_fault(tmp_path: Path, computed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    assert file_sha256(path) == file_sha256(path)
    assert len(computed) == 2


def test_the_bundled_model_is_the_released_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newly trained model needs its hash in ``tiny/weights.py``."""
    assert sha256_of(tiny.BUNDLED) == tiny.BUNDLED_SHA256
    assert load_predictor("tiny", device="cpu").info.weights_compared == {"pinned": 1}
    tampered = tmp_path / "model.safetensors"
    data = bytearray(tiny.BUNDLED.read_bytes())
    data[-2] ^= 0x10
    tampered.write_bytes(data)
    info = load_predictor("tiny", weights=tampered, device="cpu").info
    assert (info.weights_sha256, dict(info.weights_compared)) == (sha256_of(tampered), {"unknown": 1})
    monkeypatch.setattr(tiny, "BUNDLED", tampered)
    with pytest.raises(CheckpointError, match="install geo4d again"):
        tiny.check_file(tampered)


def test_pins_are_whole_and_belong_to_a_commit() -> None:
    pinned = 0
    for source in SOURCES.values():
        for hub in source.hub:
            assert hub.revision is None or (len(hub.revision) == 40 and int(hub.revision, 16))
            assert bool(hub.pinned) == (hub.revision is not None)
            for name, file in hub.pinned.items():
                assert file.size > 0
                assert len(file.sha256) == 64
                assert int(file.sha256, 16)
                assert any(Path(name).match(pattern) for pattern in hub.patterns)
                pinned += 1
    assert pinned == 7


def test_files_of_the_user_have_their_own_identity(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"mine")
    checked = check_weights([path])
    assert checked.compared == {"unknown": 1}
    assert checked.sha256 == {path: sha256_of(path)}
    with pytest.raises(CheckpointError, match="found none"):
        check_weights([tmp_path / "missing"])
