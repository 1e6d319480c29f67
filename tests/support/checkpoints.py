"""Weight files as torch.save writes them, around any pickle."""

import zipfile
from pathlib import Path

import torch

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
