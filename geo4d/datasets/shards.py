"""Packed clips: tar files that any webdataset reader opens, an index beside them, on a disk or in an object store.

A clip is a run of members with one key: ``KEY.json`` (cameras, times, how depth is stored), and for every frame
``KEY.TTTT.rgb.jpg`` (or ``.png``), ``KEY.TTTT.depth.png`` and, where it is known, ``KEY.TTTT.dynamic.png`` (255 moves).
Members with other names are kept and given back (``Clip.extras``).

Depth is a 16-bit PNG: 0 is unknown, 65535 the sky, and code c in between is near * (far / near) ** ((c - 1) / 65533) with
``near`` and ``far`` of the clip. The largest relative error stands in the clip's json as ``relative_error``; for a clip
from 1 to 1000 m it is 5.3e-5.

``index.json`` lists the sources with their ratio and their shards, and where in its tar file each clip lies, so a clip
is one read of one range. It is written last: without it the folder is no data set.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geo4d.datasets.clips import Clip
from geo4d.errors import InputError, OutputError
from geo4d.formats.places import Place

FORMAT, VERSION = "geo4d-clips", 1
INDEX = "index.json"
UNKNOWN, SKY = 0, 65535
STEPS = 65533
"""Codes of finite depth less one."""

RgbEncoding = Literal["jpg", "png"]
JPEG_QUALITY = 95


# One clip <-> members of a tar file ---------------------------------------------------------------------------------


def encode_depth(depth: np.ndarray) -> tuple[np.ndarray, float, float]:
    """uint16 codes, near and far.

    Args:
        depth: any shape; NaN unknown, +inf sky.
    Raises:
        ValueError: finite values that are not positive.
    """
    finite = np.isfinite(depth)
    if not finite.any():
        return np.where(np.isposinf(depth), SKY, UNKNOWN).astype(np.uint16), 1.0, 1.0
    near, far = float(depth[finite].min()), float(depth[finite].max())
    if near <= 0:
        raise ValueError(f"expected positive depth, got {near}; NaN is unknown and infinity the sky")
    span = max(np.log(far / near), 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.rint(np.log(np.where(finite, depth, near).astype(np.float64) / near) / span * STEPS) + 1
    codes = np.where(finite, steps.clip(1, STEPS + 1), np.where(np.isposinf(depth), SKY, UNKNOWN))
    return codes.astype(np.uint16), near, far


def decode_depth(codes: np.ndarray, near: float, far: float) -> np.ndarray:
    """float32 depth of codes."""
    depth = near * (far / near) ** ((codes.astype(np.float64) - 1) / STEPS)
    return np.where(codes == UNKNOWN, np.nan, np.where(codes == SKY, np.inf, depth)).astype(np.float32)


def relative_error(near: float, far: float) -> float:
    """Largest relative error of stored depth between ``near`` and ``far``."""
    return float((far / near) ** (0.5 / STEPS) - 1)


def _encoded(image: np.ndarray, suffix: str) -> bytes:
    import cv2

    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]}
    done, data = cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image, options.get(suffix, []))
    if not done:
        raise OutputError(f"expected to encode a picture of {image.shape} as {suffix}, it failed")
    return bytes(data)


def clip_members(clip: Clip, rgb: RgbEncoding = "jpg") -> Iterator[tuple[str, bytes]]:
    """Names without the key, and contents, of a clip's members."""
    codes, near, far = encode_depth(clip.depth)
    poses = None
    if clip.c2w is not None:
        poses = [pose.tolist() if np.isfinite(pose).all() else None for pose in clip.c2w]
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "name": clip.name,
        "dataset": clip.dataset,
        "scale_kind": clip.scale_kind,
        "still": clip.still,
        "num_frames": clip.num_frames,
        "size": list(clip.size),
        "times_s": clip.times_s.tolist(),
        "intrinsics": clip.intrinsics.tolist(),
        "c2w": poses,
        "rgb": rgb,
        "dynamic": clip.dynamic is not None,
        "depth": {
            "encoding": "log16",
            "near": near,
            "far": far,
            "relative_error": relative_error(near, far),
        },
    }
    yield "json", json.dumps(facts).encode()
    for t in range(clip.num_frames):
        yield f"{t:04d}.rgb.{rgb}", _encoded(clip.rgb[t], f".{rgb}")
        yield f"{t:04d}.depth.png", _encoded(codes[t], ".png")
        if clip.dynamic is not None:
            yield f"{t:04d}.dynamic.png", _encoded(clip.dynamic[t].astype(np.uint8) * 255, ".png")
    yield from clip.extras.items()


def _decoded(data: bytes, where: str) -> np.ndarray:
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"expected a picture in {where}, but it cannot be decoded")
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image


def clip_from_members(members: dict[str, bytes], where: str) -> Clip:
    """The clip of members by their names without the key.

    Args:
        where: names the clip in messages.
    Raises:
        InputError: another version, or members are missing or damaged.
    """
    try:
        facts = json.loads(members["json"])
        check_version(facts, where)
        frames = range(facts["num_frames"])
        rgb = np.stack([_decoded(members[f"{t:04d}.rgb.{facts['rgb']}"], where) for t in frames])
        codes = np.stack([_decoded(members[f"{t:04d}.depth.png"], where) for t in frames])
        dynamic = None
        if facts["dynamic"]:
            dynamic = np.stack([_decoded(members[f"{t:04d}.dynamic.png"], where) > 127 for t in frames])
        poses = facts["c2w"]
        nowhere = np.full((4, 4), np.nan)
        return Clip(
            name=facts["name"],
            dataset=facts["dataset"],
            rgb=rgb,
            depth=decode_depth(codes, facts["depth"]["near"], facts["depth"]["far"]),
            intrinsics=np.array(facts["intrinsics"], np.float64),
            times_s=np.array(facts["times_s"], np.float64),
            c2w=None if poses is None else np.stack([nowhere if p is None else np.array(p) for p in poses]),
            dynamic=dynamic,
            scale_kind=facts["scale_kind"],
            still=facts["still"],
            extras={
                name: data
                for name, data in members.items()
                if name != "json"
                and not name.endswith((".rgb.jpg", ".rgb.png", ".depth.png", ".dynamic.png"))
            },
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"expected a packed clip in {where}, got: {error!r}; pack it again") from error


def check_version(facts: Any, where: str) -> None:
    """
    Raises:
        InputError: not packed clips, or those of another version.
    """
    found = facts.get("version") if isinstance(facts, dict) and facts.get("format") == FORMAT else None
    if found != VERSION:
        what = "no version" if found is None else f"version {found}"
        raise InputError(
            f"expected packed clips of version {VERSION} in {where}, got {what}; pack them again with this version of "
            "geo4d data pack"
        )


# Many clips ---------------------------------------------------------------------------------------------------------


@dataclass
class Source:
    """One data set among packed clips.

    Attributes:
        name: of the data set.
        still: its frames are no video.
        ratio: how often it is drawn, relative to the others; None: by its frames.
        frames: in all its clips.
        shards: name of the tar file, and (start, end) of each of its clips.
    """

    name: str
    still: bool = False
    ratio: float | None = None
    frames: int = 0
    shards: list[tuple[str, list[tuple[int, int]]]] = field(default_factory=list)

    @property
    def num_clips(self) -> int:
        """Clips in all shards."""
        return sum(len(clips) for _, clips in self.shards)

    @property
    def weight(self) -> float:
        """Share in the mixture, not normalised: the stated ratio, or the number of frames where none is."""
        return float(self.frames if self.ratio is None else self.ratio)


class ShardWriter:
    """Writes clips source by source; ``close`` writes the index, and without it nothing is a data set.

    Args:
        root: folder or URL; must hold no packed clips.
        per_shard: clips of one tar file.
        rgb: ``jpg`` (quality 95, no chroma subsampling) or ``png``.
    Raises:
        OutputError: there are packed clips already.
    """

    def __init__(self, root: str | Path, *, per_shard: int = 64, rgb: RgbEncoding = "jpg") -> None:
        self.place = Place(str(root).rstrip("/"))
        if self.place.exists(INDEX):
            raise OutputError(f"{root} already holds packed clips; choose another folder")
        if not self.place.remote:
            Path(self.place.root).mkdir(parents=True, exist_ok=True)
        self.per_shard, self.rgb = per_shard, rgb
        self.sources: list[Source] = []

    def write_source(
        self, name: str, clips: Iterator[Clip], *, still: bool = False, ratio: float | None = None
    ) -> Source:
        """All clips of one data set.

        Raises:
            InputError: there is none, or one cannot be read.
            OutputError: not writable, or the disk is full.
        """
        source = Source(name, still, ratio)
        stem = f"{len(self.sources):02d}-{name}"
        waiting = next(clips, None)
        if waiting is None:
            raise InputError(f"expected clips of {name} to pack, got none")
        number = 0
        while waiting is not None:
            shard = f"{stem}-{len(source.shards):05d}.tar"
            ranges: list[tuple[int, int]] = []
            with self.place.write(shard) as file, tarfile.open(fileobj=file, mode="w|") as tar:
                while waiting is not None and len(ranges) < self.per_shard:
                    start = tar.offset
                    for suffix, data in clip_members(waiting, self.rgb):
                        entry = tarfile.TarInfo(f"{number:08d}.{suffix}")
                        entry.size = len(data)
                        tar.addfile(entry, io.BytesIO(data))
                    ranges.append((start, tar.offset))
                    source.frames += waiting.num_frames
                    number += 1
                    waiting = next(clips, None)
            source.shards.append((shard, ranges))
        self.sources.append(source)
        return source

    def close(self) -> None:
        """Write the index."""
        rows = [
            {
                "name": source.name,
                "still": source.still,
                "ratio": source.ratio,
                "frames": source.frames,
                "clips": source.num_clips,
                "shards": [{"name": shard, "clips": ranges} for shard, ranges in source.shards],
            }
            for source in self.sources
        ]
        facts = {"format": FORMAT, "version": VERSION, "depth": "log16", "rgb": self.rgb, "sources": rows}
        with self.place.write(INDEX) as file:
            file.write(json.dumps(facts, indent=1).encode())


class PackedClips:
    """Packed clips by number, read when asked for; numbers run through the sources in order.

    Args:
        root: folder or URL.
    Raises:
        InputError: no packed clips, those of another version, or a shard is missing or cut short.
    """

    def __init__(self, root: str | Path) -> None:
        self.place = Place(str(root).rstrip("/"))
        if not self.place.exists(INDEX):
            raise InputError(
                f"expected packed clips with an {INDEX} in {root}; make them with 'geo4d data pack'"
            )
        try:
            facts = json.loads(self.place.read(INDEX))
        except ValueError as error:
            raise InputError(f"expected JSON in {INDEX} of {root}, got: {error}") from error
        check_version(facts, f"{INDEX} of {root}")
        try:
            self.sources = tuple(
                Source(
                    row["name"],
                    row["still"],
                    row["ratio"],
                    row["frames"],
                    [
                        (shard["name"], [(int(a), int(b)) for a, b in shard["clips"]])
                        for shard in row["shards"]
                    ],
                )
                for row in facts["sources"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"expected sources and shards in {INDEX} of {root}, got: {error!r}") from error
        self._where = [
            (shard, start, end)
            for source in self.sources
            for shard, ranges in source.shards
            for start, end in ranges
        ]
        if not self._where:
            raise InputError(f"{root} holds no clips")
        for source in self.sources:
            for shard, ranges in source.shards:
                if self.place.size(shard) < ranges[-1][1]:
                    raise InputError(
                        f"expected {ranges[-1][1]} bytes and more in {shard} of {root}; copy it again"
                    )

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, number: int) -> Clip:
        shard, start, end = self._where[number]
        data = self.place.read(shard, start, end)
        where = f"{os.path.basename(self.place.root)}/{shard}, clip {number}"
        try:
            # The range is whole members; a tar file ends with two empty blocks.
            with tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as tar:
                members = {}
                for entry in tar.getmembers():
                    file = tar.extractfile(entry)
                    if file is not None:
                        members[entry.name.split(".", 1)[1]] = file.read()
        except (tarfile.TarError, EOFError, IndexError) as error:
            raise InputError(
                f"expected a packed clip in {where}, got: {error}; copy the shard again"
            ) from error
        return clip_from_members(members, where)
