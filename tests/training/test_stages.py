from dataclasses import replace

import pytest

from geo4d.errors import InputError
from geo4d.training.loop import LoopConfig
from geo4d.training.recipes import StageRun, find_stage
from geo4d.training.stages import MixedBatches, override, run_stage, stage_batches

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
