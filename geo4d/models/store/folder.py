"""Converted networks: folders of sharded safetensors with their hashes, written completely or not at all."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geo4d.errors import CheckpointError, OutputError
from geo4d.formats.files import write_json
from geo4d.formats.hashes import sha256_of
from geo4d.models.store.identity import compare

log = logging.getLogger(__name__)

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
                log.info("%s is there already", shard.name)
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


def iter_tensors(parts: Mapping[str, Mapping[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """All tensors of all parts as ``part.name``, in order."""
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            yield f"{part}.{name}", tensor
