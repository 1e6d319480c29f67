from dataclasses import replace

import pytest
import torch

from geo4d.models.tiny.conditioning import encode_evidence
from geo4d.models.tiny.movers import SUSPECT, without_contradicted
from geo4d.models.tiny.network import Evidence

SIZE, FRAMES = (64, 96), 3
BODY = (..., slice(20, 40), slice(40, 56))
INSIDE = (..., slice(11, 19), slice(21, 27))
"""The body at the size of the evidence channels, without its rim."""


def ground() -> torch.Tensor:
    return torch.linspace(0.3, 0.9, SIZE[0])[:, None].expand(1, FRAMES, *SIZE).clone()


def witness_of_a_body() -> torch.Tensor:
    seen = ground()
    seen[BODY] = 0.8
    return seen[:, :, None]


def swept(body: float, moving: float | None, sure: float = 0.7) -> Evidence:
    """Evidence with the body at a disparity, in a unit of its own, and with a confidence."""
    disparity, confidence = ground(), torch.full((1, FRAMES, *SIZE), 0.7)
    disparity[BODY], confidence[BODY] = body, sure
    evidence = encode_evidence(7 * disparity, confidence, SIZE)
    if moving is None:
        return evidence
    chance = torch.zeros(1, FRAMES, SIZE[0] // 2, SIZE[1] // 2)
    chance[..., 10:20, 20:28] = moving
    return replace(evidence, moving=chance)


def test_a_mover_that_the_sweep_puts_behind_the_ground_loses_its_evidence_and_nothing_else_does() -> None:
    given = swept(0.1, 0.5)
    kept = without_contradicted(witness_of_a_body(), given)
    assert kept.depth[INSIDE].abs().max() == 0
    still = given.moving < SUSPECT
    assert torch.equal(kept.depth.movedim(2, -1)[still], given.depth.movedim(2, -1)[still])
    assert kept.cameras is given.cameras


def test_a_mover_that_stands_where_the_witness_sees_it_keeps_its_evidence() -> None:
    given = swept(0.8, 0.9)
    assert torch.equal(without_contradicted(witness_of_a_body(), given).depth, given.depth)


def test_a_doorway_with_wrong_flow_stays() -> None:
    given, witness = swept(0.1, 0.9), ground()
    witness[BODY] = 0.25
    assert torch.equal(without_contradicted(witness[:, :, None], given).depth, given.depth)


@pytest.mark.parametrize(("sure", "left"), [(0.2, False), (0.6, True)])
def test_what_the_sweep_puts_nearer_stays_where_it_is_sure(sure, left) -> None:
    given = swept(3.0, 0.9, sure)
    kept = without_contradicted(witness_of_a_body(), given)
    assert bool(kept.depth[INSIDE].any()) == left


@pytest.mark.parametrize("moving", [0.08, None])
def test_what_stands_still_is_believed_whatever_the_pictures_look_like(moving) -> None:
    given = swept(0.1, moving)
    assert torch.equal(without_contradicted(witness_of_a_body(), given).depth, given.depth)


def test_the_unit_of_the_witness_does_not_count() -> None:
    given = swept(0.1, 0.5)
    expected = without_contradicted(witness_of_a_body(), given)
    assert torch.equal(without_contradicted(0.2 * witness_of_a_body(), given).depth, expected.depth)


def test_without_anything_still_to_compare_with_nothing_is_left_out() -> None:
    given = swept(0.1, 0.5)
    everywhere = replace(given, moving=torch.full_like(given.moving, 0.9))
    assert torch.equal(without_contradicted(witness_of_a_body(), everywhere).depth, given.depth)
