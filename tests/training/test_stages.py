import itertools
import json
from dataclasses import replace

import pytest

from geo4d.errors import InputError
from geo4d.models.tiny.weights import load_model
from geo4d.training.loop import LoopConfig
from geo4d.training.stages import PRESETS, MixedBatches, find_stage, override, run_stage, stage_batches

pytest.importorskip("numba")

CLOSED = ("codec", "calibration")
"""Stages in closed form: no steps."""


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_stage_starts_from_a_stage_that_exists(preset: str) -> None:
    stages = PRESETS[preset]().stages
    for name, stage in stages.items():
        assert stage.after is None or stage.after in stages, name
        assert stage.loop.num_steps > 0
        for stream in stage.streams:
            assert stream.clip_frames > (stage.sampling.num_frames - 1) * min(stage.sampling.strides)
            assert all(side % (64 if preset == "full" else 16) == 0 for side in stream.size)


def test_the_full_recipe_is_the_published_one() -> None:
    preset = PRESETS["full"]()
    order = [name for name, stage in preset.stages.items() if stage.kind == "diffusion"]
    assert order == ["points", "multiresolution", "rays", "disparity"]
    for name in order:
        stage = preset.stages[name]
        assert stage.loop.learning_rate == 1e-5
        assert stage.sampling.num_frames == 16
        assert stage.sampling.strides == (1, 2, 3)
    assert [preset.stages[name].diffusion.modalities for name in order] == [
        ("points",), ("points",), ("points", "rays"), ("disparity", "points", "rays"),
    ]  # fmt: skip
    assert len(preset.stages["points"].streams) == 1
    assert len(preset.stages["multiresolution"].streams) > 1


def test_no_two_joint_stages_share_scenes() -> None:
    joint = ("pairs", "clips", "windows", "depth")
    stages = PRESETS["tiny"]().stages
    needed = []
    for name in joint:
        stage = stages[name]
        count = stage.loop.num_steps * stage.loop.batch // stage.uses + (stage.uses + 1) * stage.chunk
        needed.append((stage.first_clip, stage.first_clip + count))
    for (_, end), (start, _) in itertools.pairwise(needed):
        assert end <= start


def test_names_and_overrides_are_checked() -> None:
    with pytest.raises(ValueError, match="preset out of tiny"):
        find_stage("huge", "pairs")
    with pytest.raises(ValueError, match="out of codec, pairs"):
        find_stage("tiny", "text")
    loop = LoopConfig(num_steps=3, batch=2)
    assert override(loop, num_steps=7, batch=None).num_steps == 7
    with pytest.raises(ValueError, match="fields of LoopConfig"):
        override(loop, speed=1)


def test_later_stages_need_weights(tmp_path) -> None:
    with pytest.raises(InputError, match="weights of 'codec'"):
        run_stage("smallest", "pairs", tmp_path)
    with pytest.raises(InputError, match="DynamiCrafter"):
        run_stage("full", "points", tmp_path)


def test_streams_of_several_sizes_take_turns_and_resume(source) -> None:
    _, stage = find_stage("smallest", "multiresolution")
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


@pytest.mark.slow
def test_the_whole_recipe_runs_in_small(tmp_path) -> None:
    start = None
    for name in ("codec", "pairs", "clips", "windows", "depth", "calibration"):
        folder = tmp_path / name
        progress = run_stage(
            "smallest", name, folder, start=start, num_workers=0, num_validation=2, device="cpu",
            loop=None if name in CLOSED else override(find_stage("smallest", name)[1].loop, num_steps=2),
        )  # fmt: skip
        assert progress.step == (0 if name in CLOSED else 2)
        start = folder / "weights"
        model = load_model(start / "model.safetensors")
    assert model.calibration.points.predicted
    assert model.calibration.disparity.seen
    rows = [json.loads(line) for line in (tmp_path / "depth/log.jsonl").read_text().splitlines()]
    assert any("eval/abs_rel" in row for row in rows)
