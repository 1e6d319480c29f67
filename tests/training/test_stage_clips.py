"""The clips that check a run: generated from seeds of their own, or packed ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.training.plans import SLOW_FPS, Preset, Stage, StageRun, Stream
from geo4d.training.shards import pack_clips
from geo4d.training.stage_clips import validation_clips, validation_source
from geo4d.training.tasks.tiny.batches import WindowSampling

STAGE = Stage("diffusion", None, (Stream((32, 48), 4, SLOW_FPS, swept=0.0),), WindowSampling(2, (1,)))
PRESET = Preset("tiny", {"one": STAGE}, ("one",), seed=7)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    pack_clips(STAGE.streams[0].source(99), folder, 5, per_shard=3)
    return folder


def test_generated_ones_have_seeds_of_their_own() -> None:
    source, frames = validation_source(PRESET, STAGE)
    assert frames == 8
    assert source.num_frames == 8
    assert source.size == (32, 48)
    assert source.seed != STAGE.streams[0].source(PRESET.seed).seed
    assert validation_clips(PRESET, STAGE, StageRun(Path(), num_validation=3)) == (source, 8, 3)


def test_packed_ones_are_spread_over_all_and_brought_to_the_size_of_the_stage(shards: Path) -> None:
    small = replace(STAGE, streams=(Stream((16, 32), 4, SLOW_FPS, swept=0.0),))
    run = StageRun(Path(), num_validation=2, validation_shards=shards)
    source, frames, count = validation_clips(PRESET, small, run)
    assert (frames, count) == (2, 2)
    generator = STAGE.streams[0].source(99)
    for number, packed in ((0, 0), (1, 2)):
        assert source(number).rgb.shape == (4, 16, 32, 3)
        torch.testing.assert_close(source(number).c2w, generator(packed).c2w)
    _, _, everything = validation_clips(PRESET, STAGE, replace(run, num_validation=64))
    assert everything == 5


def test_packed_ones_that_do_not_suit_are_refused(shards: Path, tmp_path: Path) -> None:
    longer = replace(STAGE, sampling=WindowSampling(6, (1,)))
    source, _, _ = validation_clips(
        PRESET, longer, StageRun(Path(), num_validation=2, validation_shards=shards)
    )
    with pytest.raises(InputError, match="expected clips of at least 6 frames"):
        source(0)
    with pytest.raises(InputError, match="expected packed clips"):
        validation_clips(PRESET, STAGE, StageRun(Path(), validation_shards=tmp_path))


def test_geometrycrafter_is_checked_by_the_same_shards(shards: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from geo4d.training.tasks.geometrycrafter.presets import find_stage
    from geo4d.training.tasks.geometrycrafter.priors import StandInPrior
    from geo4d.training.tasks.geometrycrafter.stages import validation_windows

    preset, stage = find_stage("smallest", "unet")
    windows = validation_windows(preset, stage, 2, StandInPrior(), str(shards))
    assert [window.names for window in windows] == [("synthetic synthetic@0",), ("synthetic synthetic@2",)]
    assert windows[0].rgb.shape == (1, 4, 3, *stage.cut.size)
    assert np.isfinite(windows[0].prior_depth.numpy()).any()
    assert validation_windows(preset, stage, 0, None, str(shards)) == []
