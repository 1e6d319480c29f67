import pytest

from tests.support.plane_layouts import write_irs
from tests.support.planes import H, W, check_lost, check_plane, check_recognised


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("geo4d.datasets.readers.irs.SIZE", (H, W))


def test_what_is_read_is_the_plane(tmp_path):
    check_plane(
        "irs", tmp_path, write_irs(tmp_path), marks_sky=False, tolerance=1e-5, step_s=1 / 24, with_poses=False
    )


def test_the_layout_is_told_from_all_others(tmp_path):
    write_irs(tmp_path)
    check_recognised("irs", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_irs(tmp_path)
    check_lost("irs", tmp_path, "Home/Bedroom/d_9.exr", "l_9.png")
