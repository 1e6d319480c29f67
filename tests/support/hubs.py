"""A model hub in memory."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest


class Hub:
    """A model hub of one repository, which may lie."""

    def __init__(self, content: dict[str, bytes], sha: str = "c0ffee") -> None:
        self.content, self.sha = content, sha
        self.stated: dict[str, str] = {}
        self.card: dict[str, str] | None = None
        self.asked: list[str | None] = []
        self.downloads: list[str] = []

    def model_info(
        self, repository: str, revision: str | None = None, files_metadata: bool = False
    ) -> SimpleNamespace:
        self.asked.append(revision)
        files = []
        for name, data in self.content.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            lfs = SimpleNamespace(sha256=self.stated[name]) if name in self.stated else None
            files.append(SimpleNamespace(rfilename=name, blob_id=blob if files_metadata else None, lfs=lfs))
        return SimpleNamespace(sha=self.sha, siblings=files, card_data=self.card)

    def download(self, repository: str, name: str, *, revision: str, local_dir: Path) -> None:
        assert revision == self.sha
        self.downloads.append(name)
        path = Path(local_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content[name])


def serve(monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes]) -> Hub:
    """A hub with this content in the place of the real one."""
    hub = Hub(content)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda _, *a, **k: hub.model_info(*a, **k))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub.download)
    return hub
