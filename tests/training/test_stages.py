from dataclasses import replace

import pytest

from geo4d.errors import CheckpointError, InputError
from geo4d.training.loop import LoopConfig
from geo4d.training.plans import StageRun
from geo4d.training.recipes import find_preset, find_stage
from geo4d.training.stages import MixedBatches, chain_of, override, run_stage, stage_batches
from geo4d.training.tasks.geo4d.networks import FolderPlan, fresh_networks

pytest.importorskip("numba")


def test_overrides_are_checked() -> None:
    loop = LoopConfig(num_steps=3, batch=2)
    assert override(loop, num_steps=7, batch=None).num_steps == 7
    with pytest.raises(ValueError, match="fields of LoopConfig"):
        override(loop, speed=1)


def test_later_stages_need_weights(tmp_path) -> None:
    with pytest.raises(InputError, match="weights of 'codec'"):
        run_stage("tiny", "smallest", "pairs", StageRun(tmp_path))
    with pytest.raises(InputError, match="weights of 'decoder'"):
        run_stage("geo4d", "full", "points", StageRun(tmp_path))
    with pytest.raises(InputError, match="DynamiCrafter"):
        run_stage("geo4d", "full", "decoder", StageRun(tmp_path))


def test_streams_of_several_sizes_take_turns_and_resume(source) -> None:
    _, stage = find_stage("tiny", "smallest", "multiresolution")
    mixed = stage_batches(stage, 3)
    parts = tuple(
        replace(part, source=replace(source, size=stream.size))
        for part, stream in zip(mixed.parts, stage.streams, strict=True)
    )
    mixed = MixedBatches(parts, mixed.ratios, 3)
    whole = [batch.rgb for batch, _ in zip(mixed(0, 0, 1), range(10), strict=False)]
    assert len({tuple(rgb.shape[-2:]) for rgb in whole}) == 2
    later = [batch.rgb for batch, _ in zip(mixed(6, 0, 1), range(4), strict=False)]
    assert all((a.shape == b.shape) and bool((a == b).all()) for a, b in zip(whole[6:], later, strict=True))


def test_a_chain_leaves_out_stages_that_train_more_than_the_network_has(tmp_path) -> None:
    preset = find_preset("geo4d", "full")
    assert chain_of(preset, StageRun(tmp_path, modalities=("points",))) == (
        "decoder",
        "points",
        "multiresolution",
    )
    rays = chain_of(preset, StageRun(tmp_path, modalities=("points", "rays")))
    assert rays == ("decoder", "points", "multiresolution", "rays")
    assert chain_of(preset, StageRun(tmp_path)) == preset.chain
    with pytest.raises(ValueError, match="for the family geo4d alone"):
        run_stage("tiny", "smallest", "pairs", StageRun(tmp_path, modalities=("points",)))


def test_a_start_without_the_channels_is_refused_before_the_first_stage(tmp_path) -> None:
    preset = find_preset("geo4d", "smallest")
    networks = fresh_networks(preset.geo4d, ("points",))
    FolderPlan(networks, {"stage": "s", "stages": ["s"]}, ("points",)).write(tmp_path / "w", {})
    run = StageRun(tmp_path / "run", start=tmp_path / "w")
    with pytest.raises(CheckpointError, match="those of points; train it with --modalities points"):
        chain_of(preset, run)
    assert chain_of(preset, replace(run, modalities=("points",)))[-1] == "multiresolution"
    with pytest.raises(
        CheckpointError, match=r"for the stage 'rays', .* those of points alone; leave the stage out"
    ):
        run_stage("geo4d", "smallest", "rays", replace(run, num_validation=0))
    networks = replace(networks, trained=())
    FolderPlan(networks, {"stage": "s", "stages": ["s"]}, ()).write(tmp_path / "n", {})
    with pytest.raises(CheckpointError, match=r"expected a teacher that predicts points, .* none of them"):
        run_stage("geo4d", "smallest", "one-step", replace(run, start=tmp_path / "n", num_validation=0))
