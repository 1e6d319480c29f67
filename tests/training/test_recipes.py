import itertools

import pytest

from geo4d.training.recipes import PRESETS, find_family, find_stage


@pytest.mark.parametrize(("family", "preset"), [(f, p) for f, made in PRESETS.items() for p in made])
def test_every_stage_starts_from_a_stage_that_exists(family: str, preset: str) -> None:
    stages = PRESETS[family][preset]().stages
    for name, stage in stages.items():
        assert stage.after is None or stage.after in stages, name
        assert stage.loop.num_steps > 0
        for stream in stage.streams:
            assert stream.clip_frames > (stage.sampling.num_frames - 1) * min(stage.sampling.strides)
            assert all(side % (64 if family == "geo4d" else 16) == 0 for side in stream.size)


def test_the_full_recipe_is_the_published_one() -> None:
    preset = PRESETS["geo4d"]["full"]()
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
    sizes = [stream.size for stream in preset.stages["multiresolution"].streams]
    assert sizes == [(256, 320), (384, 512), (320, 512), (256, 576), (192, 640)]


def test_no_two_joint_stages_share_scenes() -> None:
    joint = ("pairs", "clips", "windows", "depth")
    stages = PRESETS["tiny"]["full"]().stages
    needed = []
    for name in joint:
        stage = stages[name]
        count = stage.loop.num_steps * stage.loop.batch // stage.uses + (stage.uses + 1) * stage.chunk
        needed.append((stage.first_clip, stage.first_clip + count))
    for (_, end), (start, _) in itertools.pairwise(needed):
        assert end <= start


@pytest.mark.parametrize(("family", "preset"), [(f, p) for f, made in PRESETS.items() for p in made])
def test_each_stage_of_a_chain_starts_from_the_one_before(family: str, preset: str) -> None:
    made = PRESETS[family][preset]()
    assert [made.stages[name].after for name in made.chain] == [None, *made.chain[:-1]]


def test_names_are_checked_and_old_ones_explained() -> None:
    with pytest.raises(ValueError, match="preset of tiny out of smallest, full"):
        find_stage("tiny", "huge", "pairs")
    with pytest.raises(ValueError, match="now --family tiny --preset full"):
        find_stage("geo4d", "tiny", "pairs")
    with pytest.raises(ValueError, match="out of codec, pairs"):
        find_stage("tiny", "full", "text")
    with pytest.raises(ValueError, match="family out of geo4d, tiny"):
        find_stage("huge", "full", "pairs")


def test_a_preset_that_one_family_lacks() -> None:
    assert find_family("decoder", "reduced") == "geo4d"
    with pytest.raises(ValueError, match="preset of tiny out of smallest, full, got 'reduced'"):
        find_stage("tiny", "reduced", "pairs")


def test_a_family_is_found_where_one_alone_has_the_stage() -> None:
    assert find_family("pairs", "full") == "tiny"
    assert find_family("pictures", "smallest") == "geo4d"
    with pytest.raises(ValueError, match="'points', which geo4d and tiny have"):
        find_family("points", "full")
    with pytest.raises(ValueError, match="'text', which none of the families has"):
        find_family("text", "full")
