import math

import numpy as np
import pytest

from geo4d.export.config import AXES, ExportConfig, Reference


@pytest.mark.parametrize("up", AXES)
def test_axes_are_turns_that_keep_handedness(up: str) -> None:
    rotation = ExportConfig(up=up).rotation
    np.testing.assert_array_equal(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == 1


def test_up_is_where_it_is_said_to_be() -> None:
    ours_up, ours_forward = np.array([0, -1, 0]), np.array([0, 0, 1])
    y, z = ExportConfig(up="y").rotation, ExportConfig(up="z").rotation
    np.testing.assert_array_equal(y @ ours_up, [0, 1, 0])
    np.testing.assert_array_equal(y @ ours_forward, [0, 0, -1])  # glTF: cameras look along -z
    np.testing.assert_array_equal(z @ ours_up, [0, 0, 1])
    np.testing.assert_array_equal(z @ ours_forward, [0, 1, 0])
    np.testing.assert_array_equal(ExportConfig().rotation, np.eye(3))


def test_a_reference_is_read_as_it_is_written() -> None:
    found = Reference.parse("10,20.5,30,40,7,1.25")
    assert found == Reference((10, 20.5), (30, 40), 7, 1.25)
    assert found.words() == "pixels 10,20.5 and 30,40 of frame 7 are 1.25 m apart"


@pytest.mark.parametrize(
    "text", ["", "1,2,3,4,5", "1,2,3,4,5,6,7", "a,2,3,4,5,6", "1,2,3,4,5.5,6", "1 2 3 4 5 6"]
)
def test_other_forms_of_a_reference_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="x1,y1,x2,y2,FRAME,METRES"):
        Reference.parse(text)


@pytest.mark.parametrize("metres", [0.0, -1.0, math.nan, math.inf])
def test_a_length_is_above_zero(metres: float) -> None:
    with pytest.raises(ValueError, match="reference length > 0"):
        Reference((0, 0), (1, 1), 0, metres)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_points": -1}, "max_points"),
        ({"points_per_frame": 0}, "points_per_frame"),
        ({"min_confidence": 1.5}, "min_confidence"),
        ({"min_confidence": -0.1}, "min_confidence"),
        ({"edge_step": -0.1}, "edge_step"),
        ({"edge_step": math.nan}, "edge_step"),
        ({"voxel_size": -1.0}, "voxel_size"),
        ({"scale": 0.0}, "scale > 0"),
        ({"scale": math.inf}, "scale > 0"),
        ({"scale": 2.0, "reference": Reference((0, 0), (1, 1), 0, 1.0)}, "got both"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        ExportConfig(**changes)


def test_a_reference_that_was_turned_into_a_scale_is_no_contradiction() -> None:
    reference = Reference((0, 0), (1, 1), 0, 1.0)
    assert ExportConfig(scale=2.0, reference=reference, metres_per_unit=1.0).scale == 2
    assert ExportConfig(reference=reference).scale == 1
