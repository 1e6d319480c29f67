import pytest

from geo4d.errors import InputError
from tests.support.plane_layouts import write_bedlam
from tests.support.planes import check_lost, check_plane, check_recognised, load_all


def test_what_is_read_is_the_plane(tmp_path):
    check_plane("bedlam", tmp_path, write_bedlam(tmp_path), marks_sky=False, tolerance=1e-5, step_s=5 / 30)


def test_the_layout_is_told_from_all_others(tmp_path):
    write_bedlam(tmp_path)
    check_recognised("bedlam", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_bedlam(tmp_path)
    check_lost("bedlam", tmp_path, "*/depth/*/*.exr", "depth")


def test_panoramic_scenes_of_bedlam_have_no_depth_and_closeups_are_left_out(tmp_path):
    write_bedlam(tmp_path)
    scene = tmp_path / "20221024_3-10_100_batch01"
    scene.rename(tmp_path / "20221010_3_1000_batch01hand")
    # The picture without depth has no camera row either; it is not left out where no depth is read.
    with pytest.raises(InputError, match="seq_000000_0001"):
        load_all("bedlam", tmp_path)
    next(tmp_path.rglob("seq_000000_0001.png")).unlink()
    assert load_all("bedlam", tmp_path)[0].depth is None
    (tmp_path / "20221010_3_1000_batch01hand").rename(tmp_path / "20221019_1_250_closeup")
    with pytest.raises(InputError):
        load_all("bedlam", tmp_path)
