from dataclasses import replace

import pytest
import torch

from geo4d.evaluation.control import ControlPredictor, WatchedPredictor
from geo4d.geometry.poses import transform
from geo4d.models.base import Predictor
from tests.support.controls import ANSWER, SIZE, slab, stub, window


def test_the_control_is_the_evidence_spread_over_a_constant():
    evidence = slab()
    control = ControlPredictor(stub())
    assert isinstance(control, Predictor)
    answer = control.predict(window(), seed=0, evidence=evidence)
    first = answer.point_map[0]
    assert first[16, 12, 2] == pytest.approx(2, rel=0.1)
    assert first[16, 32, 2] == pytest.approx(4, rel=0.1)
    assert first[16, 3, 2] == pytest.approx(2, rel=0.2)  # no evidence, but some is near
    # Points lie in the window's frame, in the unit of the cameras.
    own = transform(torch.linalg.inv(answer.ray_c2w[3]), answer.point_map[3])
    assert own[16, 32, 2] == pytest.approx(4, rel=0.1)
    assert answer.ray_c2w[3, 0, 3] == pytest.approx(0.9)
    assert torch.allclose(1 / answer.disparity[3], own[..., 2], rtol=1e-4)
    # The pictures and the seed say nothing.
    other = control.predict(window(seed=5), seed=9, evidence=evidence)
    assert torch.equal(other.point_map, answer.point_map)


def test_the_control_without_evidence_is_flat():
    control = ControlPredictor(stub())
    for evidence in (None, replace(slab(), mask=torch.zeros(4, *SIZE, dtype=torch.bool))):
        answer = control.predict(window(), seed=0, evidence=evidence)
        depth = 1 / answer.disparity
        assert float(depth.std()) < 1e-6
        assert torch.isfinite(answer.point_map).all()


def test_evidence_of_all_windows_is_remembered():
    evidence = slab()
    watched = WatchedPredictor(stub())
    assert isinstance(watched, Predictor)
    assert watched.predict(window(), seed=0, evidence=evidence) is ANSWER
    narrow = evidence.mask.clone()
    narrow[:, :, 20:] = False
    watched.predict(window(start=2), seed=0, evidence=replace(evidence, mask=narrow))
    assert set(watched.depth) == set(range(6))
    assert torch.equal(torch.isfinite(watched.depth[0]), evidence.mask[0])
    assert torch.equal(
        torch.isfinite(watched.depth[2]), evidence.mask[2]
    )  # what one window left out, another had
    assert torch.equal(torch.isfinite(watched.depth[5]), narrow[3])
    assert float(watched.depth[0][16, 30]) == 4
