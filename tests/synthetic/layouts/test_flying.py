import numpy as np
import pytest

from tests.support.rendered import laid_out, places


@pytest.mark.parametrize("seed", range(8))
def test_things_are_in_front_of_the_camera_and_none_is_where_it_stands(seed: int) -> None:
    builder, plan, _ = laid_out("flying", seed)
    np.testing.assert_array_equal(plan.position, 0)
    hanging = np.array(builder.group) > 0
    where = places(builder)[0, hanging]
    assert 10 <= len(where) < 28
    assert (where[:, 2] > 1.5).all()
    half = np.stack(builder.size)[hanging]
    assert (np.linalg.norm(where, axis=1) > np.linalg.norm(half, axis=1)).all()


def test_about_a_third_of_the_things_moves() -> None:
    moving = total = 0
    for seed in range(12):
        builder, _, _ = laid_out("flying", seed)
        motions = [builder.groups[g] for g in set(builder.group) - {0}]
        moving += sum(np.abs(motion - motion[0]).max() > 1e-9 for motion in motions)
        total += len(motions)
    assert moving / total == pytest.approx(0.35, abs=0.1)


def test_motions_are_rigid() -> None:
    builder, _, _ = laid_out("flying", 3)
    for motion in builder.groups:
        turn = motion[:, :3, :3]
        np.testing.assert_allclose(
            turn @ turn.swapaxes(1, 2), np.tile(np.eye(3), (len(turn), 1, 1)), atol=1e-9
        )


def test_a_seed_draws_the_same_things_again() -> None:
    first, second = laid_out("flying", 5)[0], laid_out("flying", 5)[0]
    np.testing.assert_array_equal(np.stack(first.local), np.stack(second.local))
    assert first.texture == second.texture
    other = laid_out("flying", 6)[0]
    assert len(other.local) != len(first.local) or not np.allclose(
        np.stack(other.local), np.stack(first.local)
    )
