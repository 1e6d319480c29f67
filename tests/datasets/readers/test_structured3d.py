from tests.support.plane_layouts import write_structured3d
from tests.support.planes import check_lost, check_plane, check_recognised


def test_what_is_read_is_the_plane(tmp_path):
    check_plane(
        "structured3d",
        tmp_path,
        write_structured3d(tmp_path),
        marks_sky=False,
        tolerance=2e-4,
        step_s=None,
        count=1,
    )


def test_the_layout_is_told_from_all_others(tmp_path):
    write_structured3d(tmp_path)
    check_recognised("structured3d", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_structured3d(tmp_path)
    check_lost(
        "structured3d",
        tmp_path,
        "scene_00000/2D_rendering/*/perspective/full/0/camera_pose.txt",
        "camera_pose.txt",
    )
