"""The stages of the bundled model at both sizes."""

from geo4d.training.tasks.tiny.presets import JOINT, PRESETS


def test_both_sizes_have_the_same_stages() -> None:
    smallest, full = PRESETS["smallest"](), PRESETS["full"]()
    assert list(smallest.stages) == list(full.stages)
    assert smallest.chain == full.chain == JOINT
    assert all(
        smallest.stages[name].loop.num_steps < full.stages[name].loop.num_steps
        for name in full.stages
        if full.stages[name].kind not in ("codec", "calibration")
    )
