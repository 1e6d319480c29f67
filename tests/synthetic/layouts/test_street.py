import numpy as np
import pytest

from tests.support.rendered import laid_out, places


@pytest.mark.parametrize("seed", range(8))
def test_the_camera_stands_between_the_houses_above_the_road(seed: int) -> None:
    builder, plan, _ = laid_out("street", seed)
    assert plan.low is not None
    assert plan.high is not None
    assert (plan.low <= plan.position).all()
    assert (plan.position <= plan.high).all()
    assert 1.0 <= -plan.position[1] <= 2.2
    road = np.array([s for s, object_ in zip(builder.size, builder.shape, strict=True)])[1]
    assert road[0] < plan.high[0]  # the road is narrower than the gap between the houses


@pytest.mark.parametrize("seed", range(8))
def test_nothing_stands_in_the_ground_but_the_ground(seed: int) -> None:
    builder, _, _ = laid_out("street", seed)
    bottom = places(builder)[0, :, 1]
    assert bottom[1:].max() < 0.6  # y points down; trees and poles may be let in a little


def test_cars_and_people_on_the_road_move_along_it() -> None:
    seen = 0
    for seed in range(10):
        builder, _, _ = laid_out("street", seed)
        for motion in builder.groups[1:]:
            path = motion[:, :3, 3]
            length = np.linalg.norm(path[-1] - path[0])
            if length > 2.5:  # fast: a car
                seen += 1
                assert np.abs(path[-1, 0] - path[0, 0]) < 0.35 * length + 0.3
    assert seen > 3


def test_driving_is_faster_and_looks_ahead() -> None:
    driving = [laid_out("street", seed, camera="driving")[1] for seed in range(15)]
    walking = [laid_out("street", seed)[1] for seed in range(15)]
    assert min(plan.speed for plan in driving) >= 1.5
    assert np.median([plan.speed for plan in driving]) > 2 * np.median([plan.speed for plan in walking])
    assert np.std([plan.yaw for plan in driving]) < np.std([plan.yaw for plan in walking])
    assert {plan.extent for plan in driving} == {30.0}
