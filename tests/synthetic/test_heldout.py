import numpy as np
import pytest
import torch

from geo4d.synthetic import heldout


def test_definition_is_the_frozen_one():
    assert heldout.definition_hash() == heldout.recorded()["definition"]


def test_mix_is_the_promised_one():
    configs = heldout.heldout_configs()
    assert len(configs) == heldout.NUM_SEQUENCES == 64
    kinds = [config.kind for config in configs]
    assert [kinds.count(kind) for kind in ("object_on_ground", "street", "room", "terrain", "flying")] == [
        29,
        16,
        13,
        3,
        3,
    ]
    cameras = [config.camera for config in configs]
    assert cameras.count("static") == 13
    assert set(cameras) == {"static", "handheld", "dolly", "orbit", "driving", "pan"}
    assert len({config.seed for config in configs}) == 64
    assert {config.bank for config in configs} == {"heldout"}


def _differing(made: list, recorded: list, tolerance: float, relative: float = 0.0) -> float:
    """Share of values further apart than the tolerance."""
    a, b = np.array(made, float), np.array(recorded, float)
    assert a.shape == b.shape
    return float(np.mean(np.abs(a - b) > tolerance + relative * np.abs(b)))


def test_pictures_and_truth_are_the_frozen_ones():
    # A few samples may lie on an edge that the last bit of a sine moves on another machine; a scene that changed
    # differs in nearly all of them.
    for number, recorded in enumerate(heldout.recorded()["fingerprints"]):
        made = heldout.fingerprint(number)
        name = heldout.heldout_name(number)
        assert made["attempt"] == recorded["attempt"], name
        assert made["primitives"] == recorded["primitives"], name
        assert _differing(made["c2w"], recorded["c2w"], 2e-5) == 0.0, name
        assert _differing(made["focal"], recorded["focal"], 1e-3) == 0.0, name
        assert _differing(made["depth"], recorded["depth"], 1e-3, 1e-3) < 0.05, name
        assert _differing(made["object_id"], recorded["object_id"], 0.5) < 0.05, name
        assert _differing(made["dynamic"], recorded["dynamic"], 0.5) < 0.05, name
        assert _differing(made["rgb"], recorded["rgb"], 2.5) < 0.05, name


def test_a_changed_scene_is_noticed():
    recorded = heldout.recorded()["fingerprints"]
    made = heldout.fingerprint(3)
    assert _differing(made["depth"], recorded[4]["depth"], 1e-3, 1e-3) > 0.5
    assert _differing(made["rgb"], recorded[4]["rgb"], 2.5) > 0.5


def test_iterating_draws_the_chosen_sequences():
    clips = list(heldout.iter_heldout((18, 32), numbers=[0, 45]))
    assert [clip.config.kind for clip in clips] == ["object_on_ground", "room"]
    assert [clip.config.camera for clip in clips] == ["static", "static"]
    for clip in clips:
        assert clip.rgb.shape == (heldout.NUM_FRAMES, 18, 32, 3)
        assert torch.equal(clip.c2w, clip.c2w[:1].expand_as(clip.c2w))
    with pytest.raises(IndexError):
        next(heldout.iter_heldout((18, 32), numbers=[64]))
