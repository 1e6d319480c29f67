"""Packed clips of two small sources."""

import numpy as np

from geo4d.datasets.clips import Clip
from geo4d.datasets.pieces import constant_intrinsics
from geo4d.datasets.shards import PackedClips, ShardWriter


def make_clip(number: int, frames: int = 3, **changes) -> Clip:
    rng = np.random.default_rng(number)
    depth = rng.uniform(0.5, 300, (frames, 6, 8)).astype(np.float32)
    depth[:, 0, 0], depth[:, 1, 1] = np.inf, np.nan
    c2w = np.tile(np.eye(4), (frames, 1, 1))
    c2w[:, :3, 3] = rng.normal(size=(frames, 3))
    c2w[1:2] = np.nan
    fields = {
        "name": f"scene@{number}",
        "dataset": "test",
        "rgb": np.full((frames, 6, 8, 3), (number % 250, 90, 200), np.uint8),
        "depth": depth,
        "intrinsics": constant_intrinsics(frames, 10, 11, 4, 3, integer_centres=False),
        "times_s": np.arange(frames) / 10,
        "c2w": c2w,
        "dynamic": rng.random((frames, 6, 8)) > 0.5,
        **changes,
    }
    return Clip(**fields)


def pack(root, counts: dict[str, int], per_shard=2, ratios=None, **changes) -> PackedClips:
    writer = ShardWriter(root, per_shard=per_shard, rgb="png")
    first = 0
    for name, count in counts.items():
        clips = (make_clip(first + i, dataset=name, **changes) for i in range(count))
        writer.write_source(name, clips, still=name == "rooms", ratio=(ratios or {}).get(name))
        first += count
    writer.close()
    return PackedClips(root)
