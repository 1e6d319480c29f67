"""What several tests share."""

import json
from pathlib import Path

from geo4d.training.loop import LoopConfig
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.losses import PointMapWeights
from geo4d.training.tasks.geometrycrafter.networks import (
    FrozenNetworks,
    load_image_vae,
    load_point_map_vae,
)
from geo4d.training.tasks.geometrycrafter.point_maps import PointMapCoding
from geo4d.training.tasks.geometrycrafter.windows import WindowBatches, WindowCut

LOOP = LoopConfig(
    num_steps=4, batch=2, warmup=2, decay=0.0, precision="no", log_every=1, evaluate_every=0, save_every=2
)


WEIGHTS = PointMapWeights(alphas=(2, 4))


def maps_task(
    start: Path, *, seen: int | None = None, temporal_only: bool = False, checkpointing: bool = False
) -> PointMapCoding:
    plan = FolderPlan(start, {"stage": "maps"})
    frozen = FrozenNetworks(load_image_vae(start))
    return PointMapCoding(
        load_point_map_vae(start),
        frozen,
        WEIGHTS,
        plan,
        seen=seen,
        temporal_only=temporal_only,
        checkpointing=checkpointing,
    )


def batches(order, frames: tuple[int, int] = (1, 1), prior: bool = False) -> WindowBatches:
    return WindowBatches(order(prior), WindowCut((64, 64), frames, seed=2), 2)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]
