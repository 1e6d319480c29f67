import json

import numpy as np
import pytest

from geo4d.errors import InputError
from tests.support.plane_layouts import write_mvs_synth
from tests.support.planes import check_lost, check_plane, check_recognised, check_truncated, load_all


def test_what_is_read_is_the_plane(tmp_path):
    check_plane(
        "mvs-synth", tmp_path, write_mvs_synth(tmp_path), marks_sky=True, tolerance=1e-5, step_s=1 / 24
    )


@pytest.mark.parametrize("folder", ["", "GTAV_720/0000"])
def test_the_layout_is_told_from_all_others(tmp_path, folder):
    write_mvs_synth(tmp_path)
    check_recognised("mvs-synth", tmp_path / folder)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_mvs_synth(tmp_path)
    check_lost("mvs-synth", tmp_path, "GTAV_720/0000/poses/*", "0 cameras")


def test_a_truncated_file_is_named(tmp_path):
    write_mvs_synth(tmp_path)
    check_truncated("mvs-synth", tmp_path, "**/*.exr")


def test_mirrored_worlds_are_refused(tmp_path):
    write_mvs_synth(tmp_path)
    for path in tmp_path.rglob("*.json"):
        facts = json.loads(path.read_text())
        facts["extrinsic"] = (np.array(facts["extrinsic"]) @ np.diag([1, -1, 1, 1])).tolist()
        path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="left-handed"):
        load_all("mvs-synth", tmp_path)
