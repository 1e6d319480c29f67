"""Streams, and Geo4D's order of stages."""

from geo4d.training.loop import LoopConfig
from geo4d.training.plans import SLOW_FPS, Stream, published_order
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
