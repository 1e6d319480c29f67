import json

import numpy as np
import pytest

from geo4d.errors import InputError
from tests.support.plane_layouts import write_matrixcity
from tests.support.planes import check_lost, check_plane, check_recognised, load_all


def test_what_is_read_is_the_plane(tmp_path):
    check_plane(
        "matrixcity", tmp_path, write_matrixcity(tmp_path), marks_sky=True, tolerance=1e-5, step_s=1 / 24
    )


def test_the_layout_is_told_from_all_others(tmp_path):
    write_matrixcity(tmp_path)
    check_recognised("matrixcity", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_matrixcity(tmp_path)
    check_lost("matrixcity", tmp_path, "small_city_depth/*/*/*/0004.exr", "frame 4")


def test_rotations_of_another_unit_are_refused(tmp_path):
    write_matrixcity(tmp_path)
    path = next(tmp_path.rglob("transforms_origin.json"))
    facts = json.loads(path.read_text())
    for frame in facts["frames"]:
        frame["rot_mat"] = (np.array(frame["rot_mat"]) @ np.diag([100, 100, 100, 1])).tolist()
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="1 / 100"):
        load_all("matrixcity", tmp_path)
