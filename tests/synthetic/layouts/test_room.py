import numpy as np
import pytest

from tests.support.rendered import laid_out, places


@pytest.mark.parametrize("seed", range(10))
def test_camera_and_lamp_are_inside_the_walls(seed: int) -> None:
    builder, plan, _ = laid_out("room", seed)
    assert plan.indoor
    half = np.stack(builder.size)
    walls = half.max(0)  # the largest extents are those of floor and walls
    assert abs(plan.position[0]) < walls[0]
    assert abs(plan.position[2]) < walls[2]
    assert plan.position[1] < 0
    if plan.lamp is not None:
        assert abs(plan.lamp[0]) < walls[0]
        assert plan.lamp[1] < plan.position[1] + 2  # hangs under the ceiling


@pytest.mark.parametrize("seed", range(10))
def test_furniture_stands_in_the_room(seed: int) -> None:
    builder, _, _ = laid_out("room", seed)
    where, walls = places(builder)[0], np.stack(builder.size).max(0)
    assert (np.abs(where[:, 0]) <= walls[0] + 0.5).all()
    assert (np.abs(where[:, 2]) <= walls[2] + 0.5).all()
    assert where[:, 1].max() <= 0.6


def test_most_rooms_have_a_lamp_and_some_do_not() -> None:
    lamps = [laid_out("room", seed)[1].lamp is not None for seed in range(40)]
    assert np.mean(lamps) == pytest.approx(0.75, abs=0.2)
