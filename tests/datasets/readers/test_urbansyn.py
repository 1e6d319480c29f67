from tests.support.plane_layouts import write_urbansyn
from tests.support.planes import check_lost, check_plane, check_recognised


def test_what_is_read_is_the_plane(tmp_path):
    check_plane(
        "urbansyn",
        tmp_path,
        write_urbansyn(tmp_path),
        marks_sky=True,
        tolerance=1e-5,
        step_s=None,
        count=1,
        with_poses=False,
    )


def test_the_layout_is_told_from_all_others(tmp_path):
    write_urbansyn(tmp_path)
    check_recognised("urbansyn", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_urbansyn(tmp_path)
    check_lost("urbansyn", tmp_path, "ss/ss_0001.png", "ss_0001.png")
