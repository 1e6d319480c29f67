import numpy as np
import pytest

from tests.support.rendered import laid_out, places


@pytest.mark.parametrize("seed", range(10))
def test_the_camera_looks_at_the_subject_from_above_the_ground(seed: int) -> None:
    builder, plan, config = laid_out("object_on_ground", seed)
    assert plan.position[1] <= -0.25
    middle = plan.target[config.num_frames // 2]
    assert middle[2] > 1.0
    assert middle[1] < 0
    # Within the picture: a focal length of 1 sees half a picture's width at half the distance.
    assert abs(middle[0]) < 0.5 * middle[2]
    down = np.arctan2(middle[1] - plan.position[1], middle[2])
    assert abs(-plan.pitch - down) < 0.3
    assert builder.object_first


@pytest.mark.parametrize("seed", range(10))
def test_subjects_are_objects_that_were_placed_first(seed: int) -> None:
    builder, plan, _ = laid_out("object_on_ground", seed)
    assert plan.subjects
    assert plan.subjects[0] == 2  # after the ground
    assert plan.subjects == list(range(2, 2 + len(plan.subjects)))
    bounds = [*builder.object_first, len(builder.shape)]
    first, last = bounds[plan.subjects[0] - 1], bounds[plan.subjects[-1]]
    where = places(builder)[:, first:last]
    distance = np.linalg.norm(where - plan.target[:, None], axis=-1)
    assert distance.min() < 2.5


def test_who_walks_is_there_in_the_middle_of_the_clip() -> None:
    """A subject is placed for the middle frame, so that long clips do not lose it at once."""
    offsets = []
    for seed in range(12):
        _, plan, config = laid_out("object_on_ground", seed, num_frames=25)
        middle = plan.target[config.num_frames // 2]
        offsets.append(abs(middle[0]) / middle[2])
    assert max(offsets) < 0.5
