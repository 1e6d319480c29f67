"""Training clips on disk: webdataset shards (tar files of safetensors), written once, read in any order."""

import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from geo4d.errors import InputError, MissingExtraError, OutputError
from geo4d.training.data import ClipSource, TrainingClip

INDEX = "index.json"
SUFFIX = "clip.safetensors"


def pack_clips(
    source: ClipSource,
    folder: Path,
    count: int,
    *,
    per_shard: int = 256,
    first: int = 0,
    num_workers: int = 0,
) -> None:
    """Write clips ``first .. first + count`` of a source as shards with an index.

    Args:
        source: gives the clips.
        folder: new or empty.
        count: number of clips.
        per_shard: clips per tar file.
        first: number of the first clip.
        num_workers: processes that make clips; 0 makes them here. The shards do not depend on it.
    Raises:
        OutputError: the folder holds shards already.
        MissingExtraError: webdataset is not installed.
    """
    try:
        from webdataset import TarWriter
    except ImportError as error:
        raise MissingExtraError("webdataset", "train", "packing clips into shards") from error
    from geo4d.training.data import ordered_clips

    if (folder / INDEX).exists():
        raise OutputError(f"{folder} already holds packed clips; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    clips = ordered_clips(source, range(first, first + count), num_workers)
    shards = []
    for start in range(0, count, per_shard):
        name = f"clips-{start // per_shard:05d}.tar"
        # A fixed time stamp: equal clips give equal files.
        with TarWriter(str(folder / name), mtime=0) as tar:
            size = min(per_shard, count - start)
            for number in range(start, start + size):
                tar.write({"__key__": f"{number:08d}", SUFFIX: save(vars(next(clips)))})
        shards.append({"name": name, "clips": size})
    record: dict[str, Any] = {"count": count, "first": first, "shards": shards}
    if hasattr(source, "__dataclass_fields__"):
        record["source"] = asdict(source)  # type: ignore[call-overload]
    # The index comes last: without it the folder is not a data set.
    (folder / INDEX).write_text(json.dumps(record, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class _Member:
    shard: str
    offset: int
    size: int


class ShardSource:
    """A ``ClipSource`` over packed clips; clip numbers beyond the end start again."""

    def __init__(self, folder: Path) -> None:
        if not (folder / INDEX).is_file():
            raise InputError(
                f"expected packed clips with an {INDEX} in {folder}; make them with 'geo4d data pack'"
            )
        self.folder = folder
        record = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self._members: list[_Member] = []
        for shard in record["shards"]:
            with tarfile.open(folder / shard["name"]) as tar:
                found = [m for m in tar.getmembers() if m.name.endswith(SUFFIX)]
            if len(found) != shard["clips"]:
                raise InputError(f"expected {shard['clips']} clips in {shard['name']}, found {len(found)}")
            self._members += [_Member(shard["name"], m.offset_data, m.size) for m in found]
        if not self._members:
            raise InputError(f"{folder} holds no clips")

    def __len__(self) -> int:
        return len(self._members)

    def __call__(self, index: int) -> TrainingClip:
        member = self._members[index % len(self._members)]
        with (self.folder / member.shard).open("rb") as file:
            file.seek(member.offset)
            return TrainingClip(**load(file.read(member.size)))
