"""Streams, Geo4D's order of stages, and the clips that check a run."""

from geo4d.training.loop import LoopConfig
from geo4d.training.plans import SLOW_FPS, Preset, Stage, Stream, published_order, validation_source
from geo4d.training.tasks.tiny.batches import WindowSampling


def test_a_stream_without_evidence_simulates_none() -> None:
    assert Stream((32, 48), 4, swept=0.0).source(3).evidence is None
    swept = Stream((32, 48), 4, swept=0.25).source(3).evidence
    assert swept is not None
    assert swept.scale == 0.25


def test_the_published_order_adds_sizes_then_rays_then_disparity() -> None:
    one, other = Stream((32, 48), 4, SLOW_FPS), Stream((32, 32), 4, SLOW_FPS)
    loop = LoopConfig(num_steps=1, batch=1)
    stages = published_order(5, one, (other,), WindowSampling(2, (1,)), loop, "codec")
    assert [stage.after for stage in stages.values()] == ["codec", "points", "multiresolution", "rays"]
    assert [len(stage.streams) for stage in stages.values()] == [1, 2, 2, 2]
    assert [stage.diffusion.modalities for stage in stages.values()] == [
        ("points",), ("points",), ("points", "rays"), ("disparity", "points", "rays"),
    ]  # fmt: skip
    assert len({stage.first_clip for stage in stages.values()}) == 4


def test_validation_clips_have_seeds_of_their_own() -> None:
    stage = Stage("diffusion", None, (Stream((32, 48), 4, SLOW_FPS),), WindowSampling(2, (1,)))
    preset = Preset("tiny", {"one": stage}, ("one",), seed=7)
    source, frames = validation_source(preset, stage)
    assert frames == 8
    assert source.num_frames == 8
    assert source.size == (32, 48)
    assert source.seed != stage.streams[0].source(preset.seed).seed
