"""Fetching against a hub in memory: which bytes get their name, and which never do."""

import hashlib
import sys
from pathlib import Path

import pytest

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.models.store.hub import fetch_repository, stated_licence
from geo4d.models.store.sources import HubRepository
from tests.support.hubs import Hub, serve

CONTENT = {"a.safetensors": b"weights", "sub/config.json": b"{}", "unsafe.bin": b"x"}
REPOSITORY = HubRepository("some/network", ("*.safetensors", "*.json"), folder="net")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return serve(monkeypatch, dict(CONTENT))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_the_patterns_name_arrives_and_its_hashes_are_told(hub: Hub, tmp_path: Path) -> None:
    record = fetch_repository(REPOSITORY, tmp_path, None, {})
    wanted = {name: CONTENT[name] for name in ("a.safetensors", "sub/config.json")}
    assert below(tmp_path) == {f"net/{name}": data for name, data in wanted.items()}
    assert record == {
        "revision": "c0ffee",
        "folder": "net",
        "sha256": {name: sha256(data) for name, data in wanted.items()},
    }
    assert fetch_repository(REPOSITORY, tmp_path, "c0ffee", record["sha256"]) == record
    assert sorted(hub.downloads) == sorted(wanted)  # nothing a second time


def test_only_what_is_wrong_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    fetch_repository(REPOSITORY, tmp_path, None, {})
    hub.downloads.clear()
    (tmp_path / "net/a.safetensors").write_bytes(b"weighty")
    fetch_repository(REPOSITORY, tmp_path, None, {})
    assert hub.downloads == ["a.safetensors"]
    assert (tmp_path / "net/a.safetensors").read_bytes() == b"weights"


def test_other_bytes_than_at_the_same_commit_are_refused(hub: Hub, tmp_path: Path) -> None:
    """The hub states a hash, so that it can be compared before anything is fetched."""
    hub.stated["a.safetensors"] = sha256(b"weights")
    known = {"a.safetensors": sha256(b"earlier")}
    with pytest.raises(CheckpointError, match=r"the recorded one of a\.safetensors .* nothing is taken"):
        fetch_repository(REPOSITORY, tmp_path, "c0ffee", known)
    assert not hub.downloads
    hub.sha = "decaf"  # a newer commit may hold other bytes
    assert fetch_repository(REPOSITORY, tmp_path, None, known)["sha256"]["a.safetensors"] == sha256(
        b"weights"
    )


def test_a_wrong_file_gets_no_name_and_the_next_pull_goes_on(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stated["a.safetensors"] = sha256(b"weights")
    hub.content["a.safetensors"] = b"harmful"
    with pytest.raises(CheckpointError, match=r"came with SHA-256 .* it is not kept: pull again"):
        fetch_repository(REPOSITORY, tmp_path, None, {})
    assert b"harmful" not in below(tmp_path).values()
    hub.content["a.safetensors"] = b"weights"
    fetch_repository(REPOSITORY, tmp_path, None, {})
    assert (tmp_path / "net/a.safetensors").read_bytes() == b"weights"


def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    for call in (
        lambda: fetch_repository(REPOSITORY, tmp_path, None, {}),
        lambda: stated_licence(REPOSITORY),
    ):
        with pytest.raises(
            CheckpointError, match="cannot fetch some/network: no route to host; run the same"
        ):
            call()


def test_offline_only_looks(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not in the local store and --offline is set"):
        fetch_repository(REPOSITORY, tmp_path, None, {}, offline=True)
    record = fetch_repository(REPOSITORY, tmp_path, None, {})
    hub.asked.clear()
    assert fetch_repository(REPOSITORY, tmp_path, "c0ffee", record["sha256"], offline=True) == record
    (tmp_path / "net/sub/config.json").write_bytes(b"[]")
    with pytest.raises(CheckpointError, match="recorded when it was pulled"):
        fetch_repository(REPOSITORY, tmp_path, "c0ffee", record["sha256"], offline=True)
    assert not hub.asked


def test_a_repository_without_such_files_is_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has none of \['\*\.onnx'\]"):
        fetch_repository(HubRepository("a/b", ("*.onnx",)), tmp_path, None, {})


def test_the_licence_is_what_the_card_says(hub: Hub) -> None:
    assert stated_licence(REPOSITORY) == "unknown, see https://huggingface.co/some/network"
    hub.card = {"license": "mit"}
    assert stated_licence(REPOSITORY) == "mit"
    hub.card = {"license": "other", "license_name": "Stability Community"}
    assert stated_licence(REPOSITORY) == "Stability Community"


def test_without_the_library_of_the_hub_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for ask in (lambda: fetch_repository(REPOSITORY, tmp_path, None, {}), lambda: stated_licence(REPOSITORY)):
        with pytest.raises(MissingExtraError, match=r"fetching .* needs .* pip install 'geo4d\[hub\]'"):
            ask()
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    known = {"a.safetensors": sha256(b"weights")}
    place = HubRepository("some/network", ("*.safetensors",))
    assert fetch_repository(place, tmp_path, None, known, offline=True)["sha256"] == known
