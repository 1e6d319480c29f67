"""Single weight files from an address: broken, resumed, compared, and never when offline."""

import io
from pathlib import Path

import pytest

from geo4d.errors import CheckpointError
from geo4d.models.store.download import fetch_file


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
