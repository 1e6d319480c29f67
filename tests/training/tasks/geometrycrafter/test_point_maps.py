import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geo4d.training.loop import train
from geo4d.training.tasks.geometrycrafter.maps import frames_seen
from geo4d.training.tasks.geometrycrafter.networks import load_point_map_vae
from geo4d.training.tasks.geometrycrafter.point_maps import normalised, to_maps
from tests.support.trained import LOOP, batches, maps_task


def test_the_second_stage_changes_layers_that_mix_frames_alone(start, order, tmp_path: Path) -> None:
    from geo4d.training.tasks.geometrycrafter.networks import is_temporal

    loop = replace(LOOP, num_steps=1, ema_decay=0.0)
    train(maps_task(start, temporal_only=True), batches(order, (2, 2)), loop, tmp_path, device="cpu")
    before, after = (load_point_map_vae(f).state_dict() for f in (start, tmp_path / "weights"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(is_temporal(name) and name.startswith("decoder.") for name in changed)


def test_frames_that_do_not_pass_only_set_what_depth_is_divided_by(start, order) -> None:
    """Against the loss of the chosen frames, encoded and decoded one by one as pictures of their windows."""
    (batch,) = itertools.islice(batches(order, (3, 3))(0, 0, 1), 1)
    task = maps_task(start, seen=1).eval()
    with torch.no_grad():
        _, parts = task(batch)
        errors = []
        for window, sample in zip(normalised(batch), batch.samples.tolist(), strict=True):
            (frame,) = range(3)[frames_seen(sample, 3, 1)]
            maps, valid = window.encoder_input[frame][None], window.valid[frame][None]
            decoded = to_maps(task.vae.decode(task.vae.encode(maps, task.frozen.image_vae), 1))
            errors.append((decoded.log_depth - maps[:, 1]).abs()[valid])
    assert float(parts["log_depth"]) == pytest.approx(float(torch.cat(errors).mean()), rel=1e-4)
    assert float(maps_task(start)(batch)[1]["log_depth"].detach()) != pytest.approx(
        float(parts["log_depth"]), rel=1e-4
    )


@pytest.mark.parametrize("temporal_only", [False, True])
def test_recomputed_activations_give_the_same_gradients(start, order, temporal_only: bool) -> None:
    (batch,) = itertools.islice(batches(order, (2, 2))(0, 0, 1), 1)
    found = []
    for checkpointing in (False, True):
        task = maps_task(start, temporal_only=temporal_only, checkpointing=checkpointing)
        saved: list[int] = []

        def keep(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = task(batch)
        loss.backward()
        gradients = {name: value.grad for name, value in task.trained().items()}
        found.append((float(loss.detach()), gradients, sum(saved)))
    (one, plain, kept), (other, again, recomputed) = found
    assert one == pytest.approx(other, rel=1e-6)
    assert recomputed < 0.7 * kept
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-7)
