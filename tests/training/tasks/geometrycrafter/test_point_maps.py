from dataclasses import replace
from pathlib import Path

import torch

from geo4d.training.loop import train
from geo4d.training.tasks.geometrycrafter.networks import (
    load_point_map_vae,
)
from tests.support.trained import LOOP, batches, maps_task


def test_the_second_stage_changes_layers_that_mix_frames_alone(start, order, tmp_path: Path) -> None:
    from geo4d.training.tasks.geometrycrafter.networks import is_temporal

    loop = replace(LOOP, num_steps=1, ema_decay=0.0)
    train(maps_task(start, temporal_only=True), batches(order, (2, 2)), loop, tmp_path, device="cpu")
    before, after = (load_point_map_vae(f).state_dict() for f in (start, tmp_path / "weights"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(is_temporal(name) and name.startswith("decoder.") for name in changed)
